//go:build linux

package driver

import (
	"context"
	"fmt"
	"os"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NodeGetVolumeStats implements csi.NodeServer.
func (d *Driver) NodeGetVolumeStats(_ context.Context, r *csi.NodeGetVolumeStatsRequest) (*csi.NodeGetVolumeStatsResponse, error) {
	path := r.GetVolumePath()
	if r.GetVolumeId() == "" || path == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the volume or its path is missing")
	}
	v, err := d.find(volumes, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if mounted, err := mountinfo.Mounted(path); (err != nil || !mounted) && !v.Block {
		return nil, status.Errorf(codes.NotFound, "volume %s is not mounted at %s", v.ID, path)
	}
	bytes := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: v.Size}
	response := &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{bytes}}
	if v.Block {
		if _, err := os.Stat(path); err != nil {
			return nil, status.Errorf(codes.NotFound, "volume %s is not published at %s", v.ID, path)
		}
		return response, nil
	}
	if v.Kind == directory {
		bytes.Used, err = d.used(v)
		bytes.Available = max(0, v.Size-bytes.Used)
		return response, err
	}
	var stat unix.Statfs_t
	if err := unix.Statfs(path, &stat); err != nil {
		return nil, fmt.Errorf("reading the use of the file system at %s: %w", path, err)
	}

	*bytes = csi.VolumeUsage{
		Unit:  csi.VolumeUsage_BYTES,
		Total: int64(stat.Blocks) * stat.Bsize, Available: int64(stat.Bavail) * stat.Bsize, Used: int64(stat.Blocks-stat.Bfree) * stat.Bsize,
	}
	response.Usage = append(response.Usage, &csi.VolumeUsage{
		Unit:  csi.VolumeUsage_INODES,
		Total: int64(stat.Files), Available: int64(stat.Ffree), Used: int64(stat.Files - stat.Ffree),
	})
	return response, nil
}
