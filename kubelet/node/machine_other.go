//go:build !linux

package node

import (
	"errors"
	"runtime"
)

func readMachine(string) (machine, error) {
	return machine{}, errors.New("a node agent runs on Linux only, and this is " + runtime.GOOS)
}

func readUsage(string) usage { return usage{memoryAvailable: 1 << 62} }
