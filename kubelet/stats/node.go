//go:build linux

package stats

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"
)

func (p *Provider) node(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.NodeStats, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("opening /proc: %w", err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading /proc/stat: %w", err)
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return nil, fmt.Errorf("reading /proc/meminfo: %w", err)
	}
	now := metav1.Now()
	n := &statsapi.NodeStats{
		NodeName: p.cfg.NodeName, CPU: p.nodeCPU(stat), Memory: nodeMemory(memory, now),
		StartTime: metav1.NewTime(time.Unix(int64(stat.BootTime), 0)),
	}
	if total := ptr.Deref(memory.SwapTotalBytes, 0); total > 0 {
		free := ptr.Deref(memory.SwapFreeBytes, 0)
		n.Swap = &statsapi.SwapStats{Time: now, SwapAvailableBytes: &free, SwapUsageBytes: new(total - free)}
	}
	if onlyCPUAndMemory {
		return n, nil
	}
	n.Fs = fileSystem(p.cfg.RootDir, now)
	n.Runtime = p.runtime(ctx, now)
	n.Network = nodeNetwork(proc, now)
	n.Rlimit = processes(proc, now)
	return n, nil
}

type cpuSample struct {
	at   time.Time
	used uint64 // nanoseconds since boot, of all CPUs together
	rate *uint64
}

// nodeCPU returns the CPU time of the whole host, and the rate since the last sample that is at
// least a second old: shorter intervals are mostly rounding.
func (p *Provider) nodeCPU(stat procfs.Stat) *statsapi.CPUStats {
	c := stat.CPUTotal
	busy := c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ + c.Steal
	used, now := uint64(busy*float64(time.Second)), time.Now()

	p.mu.Lock()
	defer p.mu.Unlock()
	switch since := now.Sub(p.last.at); {
	case p.last.at.IsZero():
		p.last = cpuSample{at: now, used: used}
	case since >= time.Second && used >= p.last.used:
		rate := uint64(float64(used-p.last.used) / since.Seconds())
		p.last = cpuSample{at: now, used: used, rate: &rate}
	}
	return &statsapi.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &used, UsageNanoCores: p.last.rate}
}

func nodeMemory(m procfs.Meminfo, now metav1.Time) *statsapi.MemoryStats {
	total, free := ptr.Deref(m.MemTotalBytes, 0), ptr.Deref(m.MemFreeBytes, 0)
	used := total - free
	working := used - min(used, ptr.Deref(m.InactiveFileBytes, 0))
	return &statsapi.MemoryStats{
		Time: now, UsageBytes: &used, WorkingSetBytes: &working,
		AvailableBytes: new(total - working), RSSBytes: m.AnonPagesBytes,
	}
}

func (p *Provider) runtime(ctx context.Context, now metav1.Time) *statsapi.RuntimeStats {
	info, err := p.cfg.Images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil || len(info.ImageFilesystems) == 0 {
		return nil
	}
	image := info.ImageFilesystems[0]
	fs := fileSystem(image.GetFsId().GetMountpoint(), now)
	if fs == nil {
		return nil
	}
	// Only what the images use of that file system.
	fs.UsedBytes, fs.InodesUsed = number(image.UsedBytes), number(image.InodesUsed)
	return &statsapi.RuntimeStats{ImageFs: fs, ContainerFs: fs}
}

func nodeNetwork(proc procfs.FS, now metav1.Time) *statsapi.NetworkStats {
	devices, err := proc.NetDev()
	if err != nil {
		return nil
	}
	delete(devices, "lo")
	n := &statsapi.NetworkStats{Time: now}
	main := defaultInterface(proc)
	for name, d := range devices {
		i := statsapi.InterfaceStats{
			Name: name, RxBytes: new(d.RxBytes), RxErrors: new(d.RxErrors),
			TxBytes: new(d.TxBytes), TxErrors: new(d.TxErrors),
		}
		n.Interfaces = append(n.Interfaces, i)
		if name == main {
			n.InterfaceStats = i
		}
	}
	return n
}

func defaultInterface(proc procfs.FS) string {
	routes, _ := proc.NetRoute()
	all := func(r procfs.NetRouteLine) bool { return r.Destination == 0 && r.Mask == 0 }
	if i := slices.IndexFunc(routes, all); i >= 0 {
		return routes[i].Iface
	}
	return ""
}

func processes(proc procfs.FS, now metav1.Time) *statsapi.RlimitStats {
	load, err := proc.LoadAvg()
	if err != nil || load == nil {
		return nil
	}
	most, err := proc.SysctlInts("kernel.pid_max")
	if err != nil || len(most) == 0 {
		return nil
	}
	all, err := proc.AllProcs()
	if err != nil {
		return nil
	}
	return &statsapi.RlimitStats{Time: now, MaxPID: new(int64(most[0])), NumOfRunningProcesses: new(int64(len(all)))}
}

// fileSystem measures the file system of a directory; nil if it cannot.
func fileSystem(dir string, now metav1.Time) *statsapi.FsStats {
	var fs unix.Statfs_t
	if dir == "" || unix.Statfs(filepath.Clean(dir), &fs) != nil {
		return nil
	}
	block := uint64(fs.Bsize)
	return &statsapi.FsStats{
		Time: now, AvailableBytes: new(fs.Bavail * block), CapacityBytes: new(fs.Blocks * block),
		UsedBytes: new((fs.Blocks - fs.Bfree) * block),
		Inodes:    new(fs.Files), InodesFree: new(fs.Ffree), InodesUsed: new(fs.Files - fs.Ffree),
	}
}

// number is nil if the runtime has no figure.
func number(n *runtimeapi.UInt64Value) *uint64 {
	if n == nil {
		return nil
	}
	return new(n.Value)
}
