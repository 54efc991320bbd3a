package space

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Stat returns the free space of the file system of a directory.
func Stat(dir string) (Free, error) {
	var stat unix.Statfs_t
	if err := unix.Statfs(dir, &stat); err != nil {
		return Free{}, fmt.Errorf("reading the free space of %s: %w", dir, err)
	}
	return freeOf(stat, os.Geteuid() == 0), nil
}

// freeOf counts free blocks. ext2, ext3 and ext4 reserve some for root. On other file systems, free
// blocks that are not available are not for files: on btrfs, for example, they hold metadata.
func freeOf(stat unix.Statfs_t, root bool) Free {
	blocks := stat.Bavail
	if root && stat.Type == unix.EXT4_SUPER_MAGIC { // also that of ext2 and ext3, see statfs(2)
		blocks = stat.Bfree
	}
	return Free{Bytes: blocks * uint64(stat.Bsize), Inodes: stat.Ffree, Total: stat.Files}
}

// Reserve allocates the file's size and more bytes beyond it, so that writes there cannot fail for
// lack of space. The size stays as it is. Without the file, or where the file system cannot do
// that, it does nothing.
func Reserve(path string, more int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var stat unix.Stat_t
	if err == nil {
		defer f.Close()
		err = unix.Fstat(int(f.Fd()), &stat)
	}
	const blockBytes = 512 // of st_blocks, see stat(2)
	if err == nil && stat.Blocks*blockBytes < stat.Size+more {
		// Twice as much, so that a growing file does not need this every time.
		err = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, stat.Size+2*more)
	}
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("reserving space for %s: %w", path, err)
	}
	return nil
}

// Probe allocates bytes in a directory and frees them again. It fails, for example, on a quota,
// which Stat does not see.
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
