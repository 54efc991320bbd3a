package volumes

import (
	"errors"
	"fmt"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a file system in memory at dir unless one is mounted already. size is in bytes; 0
// is the kernel's default, half of the memory. All files that are made in there belong to the group,
// if there is one.
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
