package volumes

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"flyball.dev/internal/mounts"
)

// mountTmpfs mounts a file system in memory at dir unless one is mounted already. size is in bytes; 0
// is the kernel's default, half of the memory. All files that are made in there belong to the group,
// if there is one.
func mountTmpfs(dir string, size int64, group *int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("reading the file system of the volume's directory: %w", err)
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
	// Content that is in memory on purpose must not reach the disk by way of swap. Kernels before 6.3
	// do not know the option.
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
	// Before Linux 5.8 only the table has it.
	below, err := mounts.Below(filepath.Clean(path))
	return slices.Contains(below, filepath.Clean(path)), err
}
