package csi

import (
	"context"
	"fmt"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"flyball.dev/kubelet/volumes"
)

// Stats implements volumes.StatsPlugin.
func (p *Plugin) Stats(ctx context.Context, volume volumes.Volume, target, staging string) (statsapi.FsStats, error) {
	d, err := p.driver(volume.Attributes[driverKey], "")
	if err != nil {
		return statsapi.FsStats{}, err
	}
	if !d.capabilities.Has(csipb.NodeServiceCapability_RPC_GET_VOLUME_STATS) {
		return statsapi.FsStats{}, volumes.ErrNoStats
	}
	answer, err := d.NodeGetVolumeStats(ctx, &csipb.NodeGetVolumeStatsRequest{
		VolumeId: volume.Attributes[handleKey], VolumePath: target, StagingTargetPath: staging,
	})
	if err != nil {
		return statsapi.FsStats{}, err
	}
	if len(answer.GetUsage()) == 0 {
		return statsapi.FsStats{}, fmt.Errorf("CSI driver %s knows no usage of volume %s", d.name, volume.Attributes[handleKey])
	}
	var stats statsapi.FsStats
	for _, usage := range answer.GetUsage() {
		total, available, used := number(usage.GetTotal()), number(usage.GetAvailable()), number(usage.GetUsed())
		switch usage.GetUnit() {
		case csipb.VolumeUsage_BYTES:
			stats.CapacityBytes, stats.AvailableBytes, stats.UsedBytes = total, available, used
		case csipb.VolumeUsage_INODES:
			stats.Inodes, stats.InodesFree, stats.InodesUsed = total, available, used
		}
	}
	return stats, nil
}

// number of a driver, which may not be negative.
func number(n int64) *uint64 { return new(uint64(max(n, 0))) }
