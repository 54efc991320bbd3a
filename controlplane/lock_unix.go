//go:build unix

package controlplane

import (
	"os"
	"syscall"
)

// lockFile takes the file's lock, or fails if another process holds it.
func lockFile(f *os.File) error { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) }
