package space

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Stat returns what the file system of a directory has left: for root more than for others, who
// must leave it a share.
func Stat(dir string) (Free, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return Free{}, fmt.Errorf("asking for the space under %s: %w", dir, err)
	}
	blocks := stat.Bavail
	if os.Geteuid() == 0 {
		blocks = stat.Bfree
	}
	return Free{Bytes: blocks * uint64(stat.Bsize), Inodes: stat.Ffree, Total: stat.Files}, nil
}

// Reserve has the file system allocate what a file is and so much more, so that writing there cannot fail for want of space.
// The file's size stays as it is. Without the file, or where the file system cannot do that, nothing happens.
func Reserve(path string, more int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reserving space: %w", err)
	}
	defer f.Close()
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		return fmt.Errorf("reserving space for %s: %w", path, err)
	}
	const blockBytes = 512 // of st_blocks, see stat(2)
	if stat.Blocks*blockBytes >= stat.Size+more {
		return nil
	}
	// Twice of it, so that a file that grows needs this not every time.
	err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, stat.Size+2*more)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("reserving space for %s: %w", path, err)
	}
	return nil
}

// Probe allocates bytes in a directory and frees them again: Stat does not see a quota, for example.
func Probe(dir string, bytes int64) error {
	f, err := os.CreateTemp(dir, ".space-")
	if err != nil {
		return fmt.Errorf("allocating a file: %w", err)
	}
	defer f.Close()
	err = errors.Join(os.Remove(f.Name()), unix.Fallocate(int(f.Fd()), 0, 0, bytes))
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("allocating %s in %s: %w", mebibytes(uint64(bytes)), dir, err)
	}
	return nil
}

// IsNoSpace reports whether the cause of an error is that no space is left.
func IsNoSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }
