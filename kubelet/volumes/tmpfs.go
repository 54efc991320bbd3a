//go:build linux

package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	mount "k8s.io/mount-utils"
)

// mountTmpfs mounts a file system in memory at dir unless one is there already.
// size in bytes; 0 is the kernel's default, half of the memory. If there is a
// group, all that is made in there belongs to it.
func mountTmpfs(dir string, size int64, group *int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("looking at the volume's directory: %w", err)
	}
	if st.Type == unix.TMPFS_MAGIC {
		if mounted, err := isMountPoint(dir); err != nil || mounted {
			return err
		}
	}
	options := "mode=1777"
	if group != nil {
		options = fmt.Sprintf("mode=3777,gid=%d", *group)
	}
	if size > 0 {
		options += fmt.Sprintf(",size=%d", size)
	}
	// What is in memory on purpose must not reach the disk by way of swap. Kernels
	// before 6.3 do not know the option.
	err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options+",noswap")
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options)
	}
	if err != nil {
		return fmt.Errorf("mounting a file system in memory at %s: %w", dir, err)
	}
	return nil
}

// isMountPoint compares mount IDs, which also finds bind mounts.
func isMountPoint(path string) (bool, error) {
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &st); err != nil {
		return false, &os.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0, nil
	}
	// Before Linux 5.8 only the table tells.
	mounts, err := mountsBelow(filepath.Clean(path))
	return len(mounts) > 0 && mounts[0] == filepath.Clean(path), err
}

// syscallMounter is what of mount-utils' Interface the subPath library uses,
// without executing programs of the host. Other methods panic.
type syscallMounter struct{ mount.Interface }

func (syscallMounter) IsMountPoint(path string) (bool, error) { return isMountPoint(path) }

func (syscallMounter) IsLikelyNotMountPoint(path string) (bool, error) {
	is, err := isMountPoint(path)
	return !is, err
}

func (syscallMounter) CanSafelySkipMountPointCheck() bool { return false }

func (syscallMounter) Unmount(path string) error { return unmount(path) }

func (syscallMounter) MountSensitiveWithoutSystemdWithMountFlags(source, target, _ string, _, _, _ []string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("binding the subPath: %w", err)
	}
	return nil
}
