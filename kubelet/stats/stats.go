//go:build linux

package stats

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/procfs"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Runtime is what a Provider needs of CRI's RuntimeService; runtimeapi.RuntimeServiceClient
// implements it.
type Runtime interface {
	ListPodSandboxStats(ctx context.Context, in *runtimeapi.ListPodSandboxStatsRequest, opts ...grpc.CallOption) (*runtimeapi.ListPodSandboxStatsResponse, error)
	ListPodSandbox(ctx context.Context, in *runtimeapi.ListPodSandboxRequest, opts ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error)
	ListContainers(ctx context.Context, in *runtimeapi.ListContainersRequest, opts ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error)
}

// Images is what a Provider needs of CRI's ImageService; runtimeapi.ImageServiceClient implements
// it.
type Images interface {
	ImageFsInfo(ctx context.Context, in *runtimeapi.ImageFsInfoRequest, opts ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error)
}

// Config of a Provider.
type Config struct {
	NodeName string
	Runtime  Runtime
	Images   Images
	// Owned are labels of the sandboxes and containers to measure; all if empty.
	Owned map[string]string
	// RootDir is on the file system that is reported as the node's.
	RootDir string
	// PodLogsDir has the logs of containers; they are not measured if it is empty.
	PodLogsDir string
}

// Provider measures on demand. Between two calls it remembers only the node's CPU time, to report a
// rate.
type Provider struct {
	cfg     Config
	started time.Time

	mu   sync.Mutex
	last cpuSample
}

// New returns a Provider.
func New(cfg Config) *Provider {
	p := &Provider{cfg: cfg, started: time.Now()}
	if proc, err := procfs.NewDefaultFS(); err == nil {
		_, _ = p.nodeCPU(proc) // the first sample, so that the first Summary has a rate
	}
	return p
}

// Summary measures everything; with onlyCPUAndMemory neither file systems nor networks:
// metrics-server reads CPU and memory every 15 seconds.
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
