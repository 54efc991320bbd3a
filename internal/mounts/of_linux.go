package mounts

import (
	"fmt"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Of returns where a directory is mounted besides its own path, or, of a block device, where the
// file system on it is mounted and where its device node is. They are in the order of mounting.
func Of(path string) ([]string, error) {
	var wanted unix.Stat_t
	if err := unix.Stat(path, &wanted); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	isDevice := wanted.Mode&unix.S_IFMT == unix.S_IFBLK
	infos, err := mountinfo.GetMounts(func(info *mountinfo.Info) (skip, stop bool) {
		device := unix.Mkdev(uint32(info.Major), uint32(info.Minor))
		if isDevice {
			node := info.FSType == "devtmpfs" && info.Root == "/"+filepath.Base(path)
			return device != wanted.Rdev && !node, false
		}
		var found unix.Stat_t
		return device != wanted.Dev || unix.Stat(info.Mountpoint, &found) != nil || found.Ino != wanted.Ino, false
	})
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	var points []string
	for _, info := range infos {
		points = append(points, info.Mountpoint)
	}
	return points, nil
}
