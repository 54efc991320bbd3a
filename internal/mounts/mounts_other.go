//go:build !linux

package mounts

import (
	"errors"
	"runtime"
)

// errNoMounts is why nothing is unmounted here.
var errNoMounts = errors.New("directories are unmounted on Linux only, and this is " + runtime.GOOS)

// RemoveAll fails.
func RemoveAll(string) error { return errNoMounts }

// Unmount fails.
func Unmount(string) error { return errNoMounts }
