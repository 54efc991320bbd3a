// Package filelock locks files among processes. The operating system releases a lock when its file
// is closed or its process dies.
package filelock

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// Try locks a file. It returns false if another open file has the lock.
func Try(f *os.File) (bool, error) {
	const flags = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	err := windows.LockFileEx(windows.Handle(f.Fd()), flags, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}
