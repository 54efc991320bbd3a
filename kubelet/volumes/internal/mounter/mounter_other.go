//go:build !linux

package mounter

import (
	"errors"
	"runtime"

	"k8s.io/kubernetes/pkg/volume/util/subpath"
)

// errNoMounts is why only a Manager with NoFiles works here.
var errNoMounts = errors.New("volumes are mounted on Linux only, and this is " + runtime.GOOS)

// Tmpfs fails.
func Tmpfs(string, int64, *int64) error { return errNoMounts }

// Bind fails.
func Bind(string, string, []string) error { return errNoMounts }

// Device fails.
func Device(string, string, *string, []string) error { return errNoMounts }

// SubPath fails.
func SubPath(subpath.Subpath) (string, error) { return "", errNoMounts }
