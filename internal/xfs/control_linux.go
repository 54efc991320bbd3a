package xfs

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	growData     = 0x4010586e             // XFS_IOC_FSGROWFSDATA
	freeze, thaw = 0xc0045877, 0xc0045878 // FIFREEZE, FITHAW
)

// Grow makes the file system that is mounted at a path as large as size, in bytes, which its device
// has already. A file system of that size stays as it is.
func Grow(mountPoint string, size int64) error {
	args := struct {
		blocks       uint64
		inodePercent uint32
	}{uint64(size / blockSize), inodeMaxPercent}
	if err := control(mountPoint, growData, uintptr(unsafe.Pointer(&args))); err != nil {
		return fmt.Errorf("growing the file system at %s to %d bytes: %w", mountPoint, size, err)
	}
	return nil
}

// Frozen calls do while nobody can write to a mounted file system, and everything that was written
// is on its device. A process that is killed meanwhile leaves it frozen.
func Frozen(mountPoint string, do func() error) (err error) {
	if err := control(mountPoint, freeze, 0); err != nil {
		return fmt.Errorf("freezing the file system at %s: %w", mountPoint, err)
	}
	defer func() { err = errors.Join(err, Thaw(mountPoint)) }()
	return do()
}

// Thaw ends that a file system is frozen, if it is.
func Thaw(mountPoint string) error {
	if err := control(mountPoint, thaw, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("thawing the file system at %s: %w", mountPoint, err)
	}
	return nil
}

func control(path string, request, argument uintptr) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, dir.Fd(), request, argument); errno != 0 {
		return errno
	}
	return nil
}
