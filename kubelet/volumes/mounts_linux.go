package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
)

// removeAll unmounts everything below dir and then deletes it. It deletes nothing
// as long as anything is mounted: what is below a mount belongs to somebody else.
func removeAll(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	// The table is in the order of mounting; what was mounted last goes first.
	for _, path := range slices.Backward(mounts) {
		if err := unmount(path); err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
	}
	if len(mounts) > 0 {
		if mounts, err = mountsBelow(dir); err != nil {
			return err
		}
	}
	if len(mounts) > 0 {
		return fmt.Errorf("removing %s: %s is still mounted", dir, mounts[0])
	}
	// RemoveAll works relative to open directories and does not follow links.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the Pod's directory: %w", err)
	}
	return nil
}

func mountsBelow(dir string) ([]string, error) {
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

// unmount takes a mount away. If a process of ours has a file open in there, the
// mount is detached and vanishes when the file is closed.
func unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// Not mounted any more, for example because its parent took it along.
		return nil
	}
	return err
}

// bindSubPath binds a path inside a volume to one that no container can exchange
// for a link afterwards (CVE-2017-1002101), and makes the directory if it is missing.
func (m *Manager) bindSubPath(uid types.UID, container string, index int, sub SubPath, volume string) (string, error) {
	sp := subpath.New(syscallMounter{})
	host := filepath.Join(volume, sub.Path)
	if _, err := os.Stat(host); errors.Is(err, fs.ErrNotExist) {
		info, err := os.Stat(volume)
		if err != nil {
			return "", err
		}
		// With the volume's permissions: a group that may write to it may write there too.
		if err := sp.SafeMakeDir(sub.Path, volume, info.Mode()); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", err
		}
	}
	path, _, err := sp.PrepareSafeSubpath(subpath.Subpath{
		VolumeMountIndex: index,
		Path:             host,
		VolumeName:       sub.Volume,
		VolumePath:       volume,
		PodDir:           m.podDir(uid),
		ContainerName:    container,
	})
	return path, err
}
