//go:build !linux

package node

import (
	"errors"
	"runtime"
)

// ReadHostInfo fails: a node agent runs on Linux only.
func ReadHostInfo(string, int) (HostInfo, error) {
	return HostInfo{}, errors.New("reading the host: a node agent runs on Linux only, and this is " + runtime.GOOS)
}

func readUsage(string) usage { return idle }
