package volumes

import (
	"context"
	"errors"
	"time"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/kubernetes/pkg/volume"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"flyball.dev/kubelet/volumes/plan"
)

const (
	statsTTL      = time.Minute // upstream's, volumeStatsAggPeriod
	statsTimeout  = 10 * time.Second
	statsParallel = 8
)

// VolumeStats is what the kubelet's API says of one volume of a Pod.
type VolumeStats struct {
	statsapi.VolumeStats
	// Ephemeral says that the use counts as the Pod's ephemeral-storage.
	Ephemeral bool
}

// measured is when a volume was measured, and the result, nil if that failed.
type measured struct {
	at    time.Time
	stats *VolumeStats
}

// Stats measures the volumes of all mounted Pods, except for paths of the host and images. Figures
// are up to a minute old. A volume that cannot be measured is left out.
func (m *Manager) Stats(ctx context.Context) map[types.UID][]VolumeStats {
	return m.statsOf(ctx, func(Spec) bool { return true })
}

// statsOf measures some of the volumes. One call at a time does, so that the others find the
// results.
func (m *Manager) statsOf(ctx context.Context, wanted func(Spec) bool) map[types.UID][]VolumeStats {
	m.measuring.Lock()
	defer m.measuring.Unlock()
	var group errgroup.Group
	group.SetLimit(statsParallel)
	specs := m.mountedSpecs()
	for spec, mounted := range specs {
		m.mu.Lock()
		known := m.stats[spec.target()]
		m.mu.Unlock()
		if !wanted(spec) || time.Since(known.at) < statsTTL {
			continue
		}
		group.Go(func() error {
			now := measured{time.Now(), m.volumeStats(ctx, spec, mounted)}
			m.mu.Lock()
			defer m.mu.Unlock()
			// Whoever has gone away has not waited for an answer.
			if m.states[spec.Pod.UID] != nil && ctx.Err() == nil {
				m.stats[spec.target()] = now
			}
			return nil
		})
	}
	_ = group.Wait()
	all := map[types.UID][]VolumeStats{}
	m.mu.Lock()
	defer m.mu.Unlock()
	for spec := range specs {
		if s := m.stats[spec.target()].stats; s != nil && wanted(spec) {
			all[spec.Pod.UID] = append(all[spec.Pod.UID], *s)
		}
	}
	return all
}

// mountedSpecs are the volumes of all mounted Pods that have a directory or a device of their own.
func (m *Manager) mountedSpecs() map[Spec]Mounted {
	m.mu.Lock()
	defer m.mu.Unlock()
	specs := map[Spec]Mounted{}
	for _, s := range m.states {
		all := s.mounted.Load()
		if all == nil {
			continue
		}
		for _, spec := range specsOf(s.pod.Load()) {
			spec = m.claimed(spec)
			if mounted := (*all)[spec.Volume.Name]; mounted.HostPath != "" && hostPathOf(spec) == nil {
				specs[spec] = mounted
			}
		}
	}
	return specs
}

func (m *Manager) volumeStats(ctx context.Context, spec Spec, mounted Mounted) *VolumeStats {
	fs, err := m.measureVolume(ctx, spec, mounted)
	if err != nil {
		klog.FromContext(ctx).V(2).Info("Cannot measure a volume", "pod", klog.KObj(spec.Pod), "volume", spec.Volume.Name, "err", err)
		return nil
	}
	fs.Time = metav1.Now()
	out := VolumeStats{Ephemeral: volumeutil.IsLocalEphemeralVolume(*spec.Volume)}
	out.Name, out.FsStats = spec.Volume.Name, fs
	if name := claimName(spec); name != "" {
		out.PVCRef = &statsapi.PVCReference{Name: name, Namespace: spec.Pod.Namespace}
	}
	return &out
}

// measureVolume asks the plugin. Without an answer the size of a file system is that of the volume;
// a directory on a shared one is counted file by file.
func (m *Manager) measureVolume(ctx context.Context, spec Spec, mounted Mounted) (statsapi.FsStats, error) {
	if p, ok := m.pluginFor(spec).(StatsPlugin); ok {
		ctx, cancel := context.WithTimeout(ctx, statsTimeout)
		defer cancel()
		if stats, err := m.pluginStats(ctx, p, spec.target()); !errors.Is(err, ErrNoStats) {
			return stats, err
		}
	}
	provider := volume.NewMetricsDu(mounted.HostPath)
	if own, err := mountinfo.Mounted(mounted.HostPath); mounted.Device {
		provider = volume.NewMetricsBlock(mounted.HostPath)
	} else if own && err == nil {
		provider = volume.NewMetricsStatFS(mounted.HostPath)
	}
	s, err := provider.GetMetrics()
	if err != nil {
		return statsapi.FsStats{}, err
	}
	return statsapi.FsStats{
		CapacityBytes: number(s.Capacity), AvailableBytes: number(s.Available), UsedBytes: number(s.Used),
		Inodes: number(s.Inodes), InodesFree: number(s.InodesFree), InodesUsed: number(s.InodesUsed),
	}, nil
}

func (m *Manager) pluginStats(ctx context.Context, p StatsPlugin, t plan.Target) (statsapi.FsStats, error) {
	v := m.targets()[t]
	if v == nil {
		return statsapi.FsStats{}, errors.New("it is not mounted any more")
	}
	staging := ""
	if v.volume.Stage {
		staging = m.path(v, plan.Target{})
	}
	return p.Stats(ctx, v.volume, m.path(v, t), staging)
}

func number(q *resource.Quantity) *uint64 {
	if q == nil {
		return nil
	}
	return new(uint64(q.Value()))
}

// claimStats measures the volumes of claims, each once.
func (m *Manager) claimStats(ctx context.Context) map[statsapi.PVCReference]statsapi.FsStats {
	all := map[statsapi.PVCReference]statsapi.FsStats{}
	for _, volumes := range m.statsOf(ctx, func(s Spec) bool { return claimName(s) != "" }) {
		for _, v := range volumes {
			all[*v.PVCRef] = v.FsStats
		}
	}
	return all
}
