package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
	mount "k8s.io/mount-utils"

	"flyball.dev/internal/mounts"
)

// mountTmpfs mounts a file system in memory at dir unless one is mounted already. size is in bytes;
// 0 is the kernel's default, half of the memory. All files that are made in there belong to the
// group, if there is one.
func mountTmpfs(dir string, size int64, group *int64) error {
	if mounted, err := mountinfo.Mounted(dir); err != nil || mounted {
		return err
	}
	options := "mode=1777"
	if group != nil {
		options = fmt.Sprintf("mode=3777,gid=%d", *group)
	}
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	// Content that is in memory on purpose must not reach the disk by way of swap. Kernels before
	// 6.3 do not know the option.
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	}
	if err != nil {
		return fmt.Errorf("mounting a file system in memory at %s: %w", dir, err)
	}
	return nil
}

// bindSubPath binds a path inside a volume to one that no container can exchange for a link
// afterwards (CVE-2017-1002101), and makes the directory if it is missing.
func (m *Manager) bindSubPath(uid types.UID, container string, index int, sub SubPath, volume string) (string, error) {
	host := filepath.Join(volume, sub.Path)
	sp := subpath.New(syscallMounter{})
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

// syscallMounter has the methods of mount-utils' Interface that the subPath library uses, without
// executing programs of the host. Other methods panic.
type syscallMounter struct{ mount.Interface }

// IsMountPoint implements mount.Interface.
func (syscallMounter) IsMountPoint(path string) (bool, error) { return mountinfo.Mounted(path) }

// Unmount implements mount.Interface.
func (syscallMounter) Unmount(path string) error { return mounts.Unmount(path) }

// MountSensitiveWithoutSystemdWithMountFlags implements mount.Interface.
func (syscallMounter) MountSensitiveWithoutSystemdWithMountFlags(source, target, _ string, _, _, _ []string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding the subPath: %w", err)
	}
	return nil
}
