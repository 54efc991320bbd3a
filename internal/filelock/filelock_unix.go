//go:build unix

// Package filelock locks files among processes. The operating system releases a lock when its file
// is closed or its process dies.
package filelock

import (
	"errors"
	"os"
	"syscall"
)

// Try locks a file. It returns false if another open file has the lock.
func Try(f *os.File) (bool, error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return err == nil, err
		}
	}
}
