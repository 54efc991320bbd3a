package projectquota

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/quota.h and linux/dqblk_xfs.h.
const (
	projects              = 2 // PRJQUOTA
	getLimit              = 0x800007
	setLimit              = 0x800008
	getState              = 'X'<<8 + 5
	enforced              = 1 << 5 // FS_QUOTA_PDQ_ENFD
	limitUnit             = 1024
	validLimits           = 1
	getAttributes         = 0x801c581f // FS_IOC_FSGETXATTR
	setAttributes         = 0x401c5820 // FS_IOC_FSSETXATTR
	inheritProject uint32 = 0x200      // FS_XFLAG_PROJINHERIT
)

// Enabled says whether the file system of a directory keeps projects below their limits.
func Enabled(dir string) bool {
	var state struct {
		version uint8
		flags   uint16
		_       [252]byte
	}
	err := quotactl(dir, getState, 0, unsafe.Pointer(&state))
	return err == nil && state.flags&enforced != 0
}

type usage struct {
	hard, soft, used              uint64
	inodesHard, inodesSoft, inUse uint64
	graceBlocks, graceInodes      uint64
	valid                         uint32
}

// Limit sets the size of a project in bytes; 0 removes the limit.
func Limit(dir string, project uint32, size int64) error {
	blocks := uint64(size / limitUnit)
	limit := usage{hard: blocks, soft: blocks, valid: validLimits}
	if err := quotactl(dir, setLimit, project, unsafe.Pointer(&limit)); err != nil {
		return fmt.Errorf("limiting project %d on %s to %d bytes: %w", project, dir, size, err)
	}
	return nil
}

// Used returns the bytes that a project takes.
func Used(dir string, project uint32) (int64, error) {
	var limit usage
	if err := quotactl(dir, getLimit, project, unsafe.Pointer(&limit)); err != nil {
		return 0, fmt.Errorf("reading the use of project %d on %s: %w", project, dir, err)
	}
	return int64(limit.used), nil
}

// Assign makes an empty directory, and everything that will be in it, part of a project.
func Assign(dir string, project uint32) error {
	file, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("opening a directory: %w", err)
	}
	defer file.Close()
	var attributes struct {
		flags, extentSize, extents, project, copyExtentSize uint32
		_                                                   [8]byte
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), getAttributes, uintptr(unsafe.Pointer(&attributes)))
	if errno == 0 {
		attributes.flags |= inheritProject
		attributes.project = project
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, file.Fd(), setAttributes, uintptr(unsafe.Pointer(&attributes)))
	}
	if errno != 0 {
		return fmt.Errorf("assigning %s to project %d: %w", dir, project, errno)
	}
	return nil
}

func quotactl(dir string, command uintptr, project uint32, data unsafe.Pointer) error {
	file, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer file.Close()
	_, _, errno := unix.Syscall6(unix.SYS_QUOTACTL_FD, file.Fd(), command<<8|projects, uintptr(project), uintptr(data), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}
