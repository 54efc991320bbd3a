//go:build !linux

package driver

import (
	"context"
	"errors"
	"runtime"
)

var errNotLinux = errors.New("volumes on a node's disk need Linux, and this is " + runtime.GOOS)

// Driver does nothing here.
type Driver struct{}

// New returns a driver that refuses to serve.
func New(Config) *Driver { return &Driver{} }

// Serve returns an error.
func (d *Driver) Serve(context.Context, string) error { return errNotLinux }

// List returns an error.
func (d *Driver) List() ([]*Volume, error) { return nil, errNotLinux }
