//go:build linux

package driver

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// firstProject is above what users and the kubelet's own quotas usually take.
const firstProject = 1 << 30

// free returns how many bytes new volumes in base may take: what the disk has, without the reserve,
// and without what existing volumes may still take.
func (d *Driver) free(base string) (int64, error) {
	if base == d.config.Dir { // the others are the user's
		if err := os.MkdirAll(base, 0o700); err != nil {
			return 0, fmt.Errorf("making the directory for volumes: %w", err)
		}
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(base, &disk); err != nil {
		return 0, fmt.Errorf("reading the free space of %s: %w", base, err)
	}
	free := int64(disk.Bavail)*disk.Bsize - int64(disk.Blocks)*disk.Bsize/100*int64(d.config.ReservePercent)
	all, err := d.everything()
	for _, v := range all {
		var other unix.Statfs_t
		if unix.Statfs(v.Path, &other) == nil && other.Fsid == disk.Fsid {
			free -= max(0, v.Needs-v.Used) + v.Shared
		}
	}
	return max(0, free), err
}

func (d *Driver) everything() (all []*Volume, err error) {
	for _, folder := range []string{volumes, snapshots} {
		for _, prefix := range []string{"", unfinished} {
			found, err := d.list(folder, prefix)
			if err != nil {
				return nil, err
			}
			all = append(all, found...)
		}
	}
	return all, nil
}

// checkRoom returns ResourceExhausted unless base has room for more bytes.
func (d *Driver) checkRoom(base string, more int64) error {
	free, err := d.free(base)
	if err == nil && more > free {
		err = status.Errorf(codes.ResourceExhausted, "the disk of %s on node %s has room for %d bytes more in volumes, not for %d",
			base, d.config.NodeName, free, more)
	}
	return err
}

func (d *Driver) unusedProject() (uint32, error) {
	all, err := d.everything()
	project := uint32(firstProject)
	for _, v := range all {
		project = max(project, v.Project+1)
	}
	return project, err
}
