//go:build linux

package stats

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Runtime is the part of CRI that measures pods; runtimeapi.RuntimeServiceClient has it.
type Runtime interface {
	ListPodSandboxStats(ctx context.Context, in *runtimeapi.ListPodSandboxStatsRequest, opts ...grpc.CallOption) (*runtimeapi.ListPodSandboxStatsResponse, error)
	ListPodSandbox(ctx context.Context, in *runtimeapi.ListPodSandboxRequest, opts ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error)
	ListContainers(ctx context.Context, in *runtimeapi.ListContainersRequest, opts ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error)
}

// Images is the part of CRI that measures where images lie; runtimeapi.ImageServiceClient has it.
type Images interface {
	ImageFsInfo(ctx context.Context, in *runtimeapi.ImageFsInfoRequest, opts ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error)
}

// Config is what a Provider needs.
type Config struct {
	NodeName string
	Runtime  Runtime
	Images   Images
	// Owned are the labels of the sandboxes and containers that are ours; all are if it is empty.
	Owned map[string]string
	// RootDir lies on the file system reported as the node's.
	RootDir string
	// PodLogsDir is where the containers' logs are, by default /var/log/pods.
	PodLogsDir string
}

// Provider measures on demand. Between two calls it remembers only the node's
// CPU time, so that it can report a rate.
type Provider struct {
	cfg  Config
	born time.Time

	mu   sync.Mutex
	last cpuSample
}

type cpuSample struct {
	at   time.Time
	used uint64 // nanoseconds since boot, of all CPUs together
	rate *uint64
}

// New returns a Provider.
func New(cfg Config) *Provider {
	p := &Provider{cfg: cfg, born: time.Now()}
	_, _ = p.nodeCPU() // the first sample, so that the first answer has a rate
	return p
}

// Summary measures everything. With onlyCPUAndMemory the file systems and
// networks are left out, which is what a metrics-server asks for every 15 seconds.
func (p *Provider) Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error) {
	node, err := p.node(ctx, onlyCPUAndMemory)
	if err != nil {
		return nil, err
	}
	pods, err := p.pods(ctx, onlyCPUAndMemory)
	if err != nil {
		return nil, err
	}
	return &statsapi.Summary{Node: *node, Pods: pods}, nil
}

func (p *Provider) node(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.NodeStats, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("opening /proc: %w", err)
	}
	cpu, err := p.nodeCPU()
	if err != nil {
		return nil, err
	}
	memory, err := proc.Meminfo()
	if err != nil {
		return nil, fmt.Errorf("reading /proc/meminfo: %w", err)
	}
	now := metav1.Now()
	n := &statsapi.NodeStats{NodeName: p.cfg.NodeName, CPU: cpu, Memory: nodeMemory(memory, now), StartTime: metav1.NewTime(p.born)}
	if stat, err := proc.Stat(); err == nil {
		n.StartTime = metav1.NewTime(time.Unix(int64(stat.BootTime), 0))
	}
	if total := value(memory.SwapTotalBytes); total > 0 {
		free := value(memory.SwapFreeBytes)
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

// nodeCPU reads the CPU time of the whole machine, and the rate since the last
// sample that is at least a second old: shorter intervals are mostly rounding.
func (p *Provider) nodeCPU() (*statsapi.CPUStats, error) {
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return nil, fmt.Errorf("opening /proc: %w", err)
	}
	stat, err := proc.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading /proc/stat: %w", err)
	}
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
	return &statsapi.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &used, UsageNanoCores: p.last.rate}, nil
}

func nodeMemory(m procfs.Meminfo, now metav1.Time) *statsapi.MemoryStats {
	total, free := value(m.MemTotalBytes), value(m.MemFreeBytes)
	used := total - free
	working := used - min(used, value(m.InactiveFileBytes))
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
	// What the images take, not what everybody takes of that file system.
	fs.UsedBytes, fs.InodesUsed = number(image.UsedBytes), number(image.InodesUsed)
	return &statsapi.RuntimeStats{ImageFs: fs, ContainerFs: fs}
}

func nodeNetwork(proc procfs.FS, now metav1.Time) *statsapi.NetworkStats {
	devices, err := proc.NetDev()
	if err != nil {
		return nil
	}
	n := &statsapi.NetworkStats{Time: now}
	main := defaultInterface(proc)
	for name, d := range devices {
		if name == "lo" {
			continue
		}
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
	routes, err := proc.NetRoute()
	if err != nil {
		return ""
	}
	for _, r := range routes {
		if r.Destination == 0 && r.Mask == 0 {
			return r.Iface
		}
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

// fileSystem measures the file system that a directory lies on; nil if it cannot.
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

func value(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}

func number(n *runtimeapi.UInt64Value) *uint64 {
	if n == nil {
		return nil
	}
	return new(n.Value)
}
