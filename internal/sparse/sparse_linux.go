package sparse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const piece = 1 << 20

// Clone makes a file equal to another one by sharing its blocks, at once. The error is ErrUnsupported
// where the two are not in one file system that can do this.
func Clone(out, in *os.File) error {
	err := unix.IoctlFileClone(int(out.Fd()), int(in.Fd()))
	if errors.Is(err, unix.EXDEV) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		err = unix.EOPNOTSUPP
	}
	if err != nil {
		return fmt.Errorf("sharing the blocks of %s: %w", in.Name(), err)
	}
	return nil
}

// Copy makes a file equal to another one, holes included, and writes only what differs: a second
// call copies what changed since the first.
func Copy(ctx context.Context, out, in *os.File) error {
	size, err := in.Seek(0, io.SeekEnd)
	if err == nil {
		err = out.Truncate(size)
	}
	wanted, found := make([]byte, piece), make([]byte, piece)
	for at := int64(0); at < size && err == nil; {
		data, hole := size, size
		if next, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA); err == nil {
			data = min(next, size)
		} else if !errors.Is(err, unix.ENXIO) { // there is no more data
			return fmt.Errorf("looking for data: %w", err)
		}
		if data < size {
			if hole, err = unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE); err != nil {
				return fmt.Errorf("looking for the end of data: %w", err)
			}
			hole = min(hole, size)
		}
		if data > at {
			err = fallocate(out, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, data-at)
		}
		for at = data; at < hole && err == nil; {
			n := min(piece, hole-at)
			_, err = in.ReadAt(wanted[:n], at)
			if err == nil {
				_, err = out.ReadAt(found[:n], at)
			}
			if err == nil && !bytes.Equal(wanted[:n], found[:n]) {
				_, err = out.WriteAt(wanted[:n], at)
			}
			err = errors.Join(err, ctx.Err())
			at += n
		}
	}
	if err != nil {
		return fmt.Errorf("copying %s: %w", in.Name(), err)
	}
	return nil
}

// Extend makes a file as large as size, in bytes, and never smaller. With allocate, its blocks are
// its own from now on; the error is ErrUnsupported where the file system cannot do this.
func Extend(file *os.File, size int64, allocate bool) error {
	end, err := file.Seek(0, io.SeekEnd)
	if err == nil && allocate {
		err = fallocate(file, 0, 0, size)
	} else if err == nil && end < size {
		err = file.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("extending %s to %d bytes: %w", file.Name(), size, err)
	}
	return nil
}

func fallocate(file *os.File, mode uint32, at, length int64) error {
	for {
		if err := unix.Fallocate(int(file.Fd()), mode, at, length); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
