//go:build linux

package stats

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/volumes"
)

// pods measures each Pod whose sandbox runs.
func (p *Provider) pods(ctx context.Context, onlyCPUAndMemory bool) ([]statsapi.PodStats, error) {
	filter := &runtimeapi.PodSandboxStatsFilter{LabelSelector: p.cfg.Owned}
	measured, err := p.cfg.Runtime.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("measuring the pods through the container runtime: %w", err)
	}
	startedAt, err := p.startTimes(ctx)
	if err != nil {
		return nil, err
	}
	var measuredVolumes map[types.UID][]volumes.VolumeStats
	if !onlyCPUAndMemory && p.cfg.Volumes != nil {
		measuredVolumes = p.cfg.Volumes(ctx)
	}
	pods := []statsapi.PodStats{}
	for _, s := range measured.Stats {
		if s.GetLinux() == nil || s.GetAttributes().GetMetadata() == nil {
			continue // it ended while it was measured
		}
		pod := p.pod(s, startedAt, onlyCPUAndMemory)
		addVolumes(&pod, measuredVolumes[types.UID(pod.PodRef.UID)])
		pods = append(pods, pod)
	}
	slices.SortFunc(pods, func(a, b statsapi.PodStats) int {
		return cmp.Or(cmp.Compare(a.PodRef.Namespace, b.PodRef.Namespace), cmp.Compare(a.PodRef.Name, b.PodRef.Name))
	})
	return pods, nil
}

// startTimes of sandboxes and containers, by ID; the statistics do not have them. CRI lists when a
// container was created, which is milliseconds before it started.
func (p *Provider) startTimes(ctx context.Context) (map[string]metav1.Time, error) {
	sandboxes, containers, err := remote.List(ctx, p.cfg.Runtime, p.cfg.Owned)
	if err != nil {
		return nil, err
	}
	startedAt := map[string]metav1.Time{}
	for _, s := range sandboxes {
		startedAt[s.Id] = nanoTime(s.CreatedAt)
	}
	for _, c := range containers {
		startedAt[c.Id] = nanoTime(c.CreatedAt)
	}
	return startedAt, nil
}

func (p *Provider) pod(
	s *runtimeapi.PodSandboxStats, startedAt map[string]metav1.Time, onlyCPUAndMemory bool,
) statsapi.PodStats {
	meta, linux := s.Attributes.Metadata, s.Linux
	pod := statsapi.PodStats{
		PodRef:    statsapi.PodReference{Name: meta.Name, Namespace: meta.Namespace, UID: meta.Uid},
		StartTime: startedAt[s.Attributes.Id],
		CPU:       cpu(linux.Cpu), Memory: memory(linux.Memory), Containers: []statsapi.ContainerStats{},
	}
	for _, c := range linux.Containers {
		if c.GetAttributes().GetMetadata() == nil {
			continue
		}
		pod.Containers = append(pod.Containers, p.container(meta, c, startedAt, onlyCPUAndMemory))
	}
	slices.SortFunc(pod.Containers, func(a, b statsapi.ContainerStats) int { return cmp.Compare(a.Name, b.Name) })
	if onlyCPUAndMemory {
		return pod
	}
	pod.Network = network(linux.Network)
	if n := linux.Process.GetProcessCount(); n != nil {
		pod.ProcessStats = &statsapi.ProcessStats{ProcessCount: &n.Value}
	}
	pod.EphemeralStorage = ephemeral(pod.Containers)
	return pod
}

func (p *Provider) container(
	pod *runtimeapi.PodSandboxMetadata, c *runtimeapi.ContainerStats, startedAt map[string]metav1.Time,
	onlyCPUAndMemory bool,
) statsapi.ContainerStats {
	name := c.Attributes.Metadata.Name
	s := statsapi.ContainerStats{
		Name: name, StartTime: startedAt[c.Attributes.Id], CPU: cpu(c.Cpu), Memory: memory(c.Memory),
	}
	if c.Swap != nil {
		s.Swap = &statsapi.SwapStats{
			Time:               nanoTime(c.Swap.Timestamp),
			SwapAvailableBytes: number(c.Swap.SwapAvailableBytes), SwapUsageBytes: number(c.Swap.SwapUsageBytes),
		}
	}
	if onlyCPUAndMemory {
		return s
	}
	// The runtime measures layers from time to time; before the first time there is no figure.
	if l := c.WritableLayer; l != nil && l.Timestamp != 0 {
		at := nanoTime(l.Timestamp)
		// The size is that of the whole file system, the usage that of this container.
		if s.Rootfs = fileSystem(l.GetFsId().GetMountpoint(), at); s.Rootfs == nil {
			s.Rootfs = &statsapi.FsStats{Time: at}
		}
		s.Rootfs.UsedBytes, s.Rootfs.InodesUsed = number(l.UsedBytes), number(l.InodesUsed)
	}
	s.Logs = p.logs(pod, name)
	return s
}

// logs measures the logs of a container, in NAMESPACE_POD_UID/CONTAINER.
func (p *Provider) logs(pod *runtimeapi.PodSandboxMetadata, container string) *statsapi.FsStats {
	l := fileSystem(p.cfg.PodLogsDir, metav1.Now())
	if l == nil {
		return nil
	}
	dir := filepath.Join(p.cfg.PodLogsDir, pod.Namespace+"_"+pod.Name+"_"+pod.Uid, container)
	var size, files uint64
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // removed meanwhile: count the rest
		}
		files++
		if info, err := e.Info(); err == nil && !e.IsDir() {
			size += uint64(info.Size())
		}
		return nil
	})
	l.UsedBytes, l.InodesUsed = &size, &files
	return l
}

// addVolumes also counts those with ephemeral-storage to the Pod's.
func addVolumes(pod *statsapi.PodStats, all []volumes.VolumeStats) {
	for _, v := range all {
		pod.VolumeStats = append(pod.VolumeStats, v.VolumeStats)
		if v.Ephemeral {
			pod.EphemeralStorage = add(pod.EphemeralStorage, &v.FsStats)
		}
	}
	slices.SortFunc(pod.VolumeStats, func(a, b statsapi.VolumeStats) int { return cmp.Compare(a.Name, b.Name) })
}

// ephemeral adds up writable layers and logs, which count as a Pod's ephemeral-storage.
func ephemeral(containers []statsapi.ContainerStats) *statsapi.FsStats {
	var sum *statsapi.FsStats
	for _, c := range containers {
		sum = add(add(sum, c.Rootfs), c.Logs)
	}
	return sum
}

// add adds the use of a file system to a sum; both may be nil.
func add(sum, fs *statsapi.FsStats) *statsapi.FsStats {
	if fs == nil {
		return sum
	}
	if sum == nil {
		sum = new(*fs)
		sum.UsedBytes, sum.InodesUsed = new(uint64), new(uint64)
	}
	*sum.UsedBytes += ptr.Deref(fs.UsedBytes, 0)
	*sum.InodesUsed += ptr.Deref(fs.InodesUsed, 0)
	return sum
}

func cpu(u *runtimeapi.CpuUsage) *statsapi.CPUStats {
	if u == nil {
		return nil
	}
	return &statsapi.CPUStats{
		Time:                 nanoTime(u.Timestamp),
		UsageCoreNanoSeconds: number(u.UsageCoreNanoSeconds), UsageNanoCores: number(u.UsageNanoCores),
	}
}

func memory(u *runtimeapi.MemoryUsage) *statsapi.MemoryStats {
	if u == nil {
		return nil
	}
	return &statsapi.MemoryStats{
		Time: nanoTime(u.Timestamp), AvailableBytes: number(u.AvailableBytes), UsageBytes: number(u.UsageBytes),
		WorkingSetBytes: number(u.WorkingSetBytes), RSSBytes: number(u.RssBytes),
		PageFaults: number(u.PageFaults), MajorPageFaults: number(u.MajorPageFaults),
	}
}

func network(u *runtimeapi.NetworkUsage) *statsapi.NetworkStats {
	if u == nil {
		return nil
	}
	n := &statsapi.NetworkStats{Time: nanoTime(u.Timestamp)}
	for _, i := range u.Interfaces {
		n.Interfaces = append(n.Interfaces, networkInterface(i))
	}
	if d := u.DefaultInterface; d != nil {
		n.InterfaceStats = networkInterface(d)
		// Some runtimes list the default interface again.
		if !slices.ContainsFunc(n.Interfaces, func(i statsapi.InterfaceStats) bool { return i.Name == d.Name }) {
			n.Interfaces = append(n.Interfaces, n.InterfaceStats)
		}
	}
	return n
}

func networkInterface(i *runtimeapi.NetworkInterfaceUsage) statsapi.InterfaceStats {
	return statsapi.InterfaceStats{
		Name: i.Name, RxBytes: number(i.RxBytes), RxErrors: number(i.RxErrors),
		TxBytes: number(i.TxBytes), TxErrors: number(i.TxErrors),
	}
}

func nanoTime(ns int64) metav1.Time {
	if ns == 0 {
		return metav1.Time{}
	}
	return metav1.NewTime(time.Unix(0, ns))
}
