package cluster

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// diskNeeded is the part of a node's file system that must be free: with less the node has DiskPressure and takes no Pods.
const diskNeeded = 0.10

// measure fails if the file system that the directory is on, or will be, has too little room for a node.
func measure(dir string) error {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	for ; errors.Is(err, unix.ENOENT); err = unix.Statfs(dir, &fs) {
		dir = filepath.Dir(dir)
	}
	if err != nil {
		return fmt.Errorf("measuring the file system of %s: %w", dir, err)
	}
	return enough(dir, fs.Bavail*uint64(fs.Bsize), fs.Blocks*uint64(fs.Bsize))
}

// enough says whether so many free bytes are enough.
func enough(dir string, free, size uint64) error {
	if float64(free) >= diskNeeded*float64(size) {
		return nil
	}
	const gib = 1 << 30
	return fmt.Errorf("starting a cluster: the file system of %s has %.1f GiB free of %.1f, and its nodes need %.1f (%.0f %%), or they refuse Pods for DiskPressure; free some",
		dir, float64(free)/gib, float64(size)/gib, diskNeeded*float64(size)/gib, diskNeeded*100)
}
