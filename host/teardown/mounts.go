//go:build linux

package teardown

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"github.com/samber/lo"
	"golang.org/x/sys/unix"
)

// mountsBelow returns the mount points at or below dir, the deepest first.
func mountsBelow(dir string) ([]string, error) {
	if resolved, err := filepath.EvalSymlinks(dir); err == nil {
		dir = resolved
	}
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("listing mounts: %w", err)
	}
	points := lo.Map(mounts, func(m *mountinfo.Info, _ int) string { return m.Mountpoint })
	slices.SortFunc(points, func(a, b string) int { return strings.Compare(b, a) })
	return points, nil
}

// unmount unmounts everything below the directories. The directories themselves may be mounts of
// the user's.
func unmount(dirs ...string) error {
	var errs []error
	for _, dir := range dirs {
		points, err := mountsBelow(dir)
		errs = append(errs, err)
		for _, p := range points {
			if p == dir {
				continue
			}
			// Lazily: a process that still uses the files must not keep the mount in place.
			if err := unix.Unmount(p, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
				errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
			}
		}
	}
	return errors.Join(errs...)
}

// removeTree removes a directory and everything in it, but never what is mounted there.
func removeTree(dir string) error {
	points, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	if len(points) > 0 {
		return fmt.Errorf("removing %s: %s is mounted there; unmount it first", dir, strings.Join(points, ", "))
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	return nil
}
