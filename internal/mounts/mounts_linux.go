package mounts

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"k8s.io/kubernetes/pkg/util/removeall"
	mount "k8s.io/mount-utils"
)

// RemoveAll unmounts everything below dir and then removes it.
func RemoveAll(dir string) error {
	if err := UnmountBelow(dir); err != nil {
		return err
	}
	return RemoveTree(dir)
}

// RemoveTree removes a directory. It follows no link, and removes nothing as long as anything is
// mounted at the directory or below.
func RemoveTree(dir string) error {
	points, err := below(dir)
	if err == nil && len(points) > 0 {
		err = fmt.Errorf("%s is still mounted; unmount it first", strings.Join(points, ", "))
	}
	if err == nil {
		err = removeUnmounted(dir)
	}
	if err != nil {
		return fmt.Errorf("removing %s: %w", dir, err)
	}
	return nil
}

// removeUnmounted spares what was mounted after the mount table was read.
func removeUnmounted(dir string) error { return removeall.RemoveAllOneFilesystem(mounter{}, dir) }

// mounter has the method of mount-utils' Interface that removeall uses. It also finds bind mounts.
type mounter struct{ mount.Interface }

// IsLikelyNotMountPoint implements mount.Interface.
func (mounter) IsLikelyNotMountPoint(path string) (bool, error) {
	mounted, err := mountinfo.Mounted(path)
	return !mounted, err
}

// UnmountBelow unmounts everything below dir, but not what is mounted at dir itself.
func UnmountBelow(dir string) error {
	points, err := below(dir)
	errs := []error{err}
	resolved, _ := filepath.EvalSymlinks(dir)
	// The table is in the order of mounting; what was mounted last goes first.
	for _, path := range slices.Backward(points) {
		if path == resolved {
			continue
		}
		if err := Unmount(path); err != nil {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// below returns the mount points at or below a directory, in the order of mounting. It reads the
// mount table with moby's reader: that of mount-utils leaves spaces in paths escaped, and a
// container may mount at any path.
func below(dir string) ([]string, error) {
	dir, err := filepath.EvalSymlinks(dir) // the kernel's mount table has no links
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("reading the path %s: %w", dir, err)
	}
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	var paths []string
	for _, info := range infos {
		paths = append(paths, info.Mountpoint)
	}
	return paths, nil
}

// Unmount unmounts a path, if anything is mounted there. If a process of ours has a file open in
// there, the mount is detached and vanishes when the file is closed.
func Unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// Not mounted any more, for example because it was unmounted with its parent.
		return nil
	}
	return err
}
