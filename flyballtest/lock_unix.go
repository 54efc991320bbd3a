//go:build unix

package flyballtest

import (
	"errors"
	"os"
	"syscall"
)

// tryLock takes the file's lock, unless another open file holds it.
func tryLock(f *os.File) (held bool, err error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return err == nil, err
		}
	}
}
