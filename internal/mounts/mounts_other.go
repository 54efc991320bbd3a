//go:build !linux

package mounts

import (
	"errors"
	"runtime"
)

var errUnsupported = errors.New("directories with mounts are removed on Linux only, and this is " + runtime.GOOS)

// Below returns the mount points at or below a directory.
func Below(string) ([]string, error) { return nil, errUnsupported }

// Unmount unmounts a path.
func Unmount(string) error { return errUnsupported }

// RemoveAll unmounts everything below dir and then deletes it.
func RemoveAll(string) error { return errUnsupported }

// RemoveTree deletes a directory.
func RemoveTree(string) error { return errUnsupported }
