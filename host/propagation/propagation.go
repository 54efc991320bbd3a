//go:build linux

// Package propagation makes the mounts shared that Pods may ask to share with the host. systemd
// makes all of them shared when it starts; without it, in CI or in a container, they are private,
// and the runtime refuses a Pod that mounts / with HostToContainer, or anything with Bidirectional.
//
// Only mounts of this process's own mount namespace change, and only those that are private. They
// stay shared after `flyball down`: others may have come to rely on that by then, and making a
// shared mount private cuts them off.
package propagation

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Share makes / shared with all that is mounted below, as systemd does, if it is private, and so
// the mounts that hold dirs.
func Share(dirs ...string) error {
	mounts, err := mountinfo.GetMounts(nil)
	if err != nil {
		return fmt.Errorf("reading the mounts of this host: %w", err)
	}
	for i, dir := range dirs {
		if resolved, err := filepath.EvalSymlinks(dir); err == nil {
			dirs[i] = resolved
		}
	}
	for _, point := range private(mounts, dirs) {
		flags := uintptr(unix.MS_SHARED)
		if point == "/" {
			flags |= unix.MS_REC
		}
		if err := unix.Mount("", point, "", flags, ""); err != nil {
			return fmt.Errorf("making the mount %s shared, which Pods with mountPropagation need: %w", point, err)
		}
	}
	return nil
}

// private are the mount points that are not shared, of those that hold / and dirs.
func private(mounts []*mountinfo.Info, dirs []string) []string {
	var points []string
	for _, dir := range slices.Concat([]string{"/"}, dirs) {
		m := Holding(mounts, dir)
		if m == nil || strings.Contains(" "+m.Optional, " shared:") || slices.Contains(points, m.Mountpoint) {
			continue
		}
		points = append(points, m.Mountpoint)
	}
	return points
}

// Holding is the mount that dir, a path without links, lies on; nil if mounts has none. Of two at the
// same place, the later one hides the earlier.
func Holding(mounts []*mountinfo.Info, dir string) *mountinfo.Info {
	var found *mountinfo.Info
	for _, m := range mounts {
		if m.Mountpoint != "/" && m.Mountpoint != dir && !strings.HasPrefix(dir, m.Mountpoint+"/") {
			continue
		}
		if found == nil || len(m.Mountpoint) >= len(found.Mountpoint) {
			found = m
		}
	}
	return found
}
