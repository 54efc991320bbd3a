//go:build linux

package stats

import (
	"context"
	"sync"

	"github.com/prometheus/procfs"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"flyball.dev/kubelet/volumes"
)

// Config of a Provider.
type Config struct {
	NodeName string
	Runtime  runtimeapi.RuntimeServiceClient
	Images   runtimeapi.ImageServiceClient
	// Owned are labels of the sandboxes and containers to measure; all if empty.
	Owned map[string]string
	// RootDir is on the file system that is reported as the node's.
	RootDir string
	// PodLogsDir has the logs of containers.
	PodLogsDir string
	// Volumes measures the volumes of Pods; volumes.Manager.Stats does. May be
	// nil.
	Volumes func(context.Context) map[types.UID][]volumes.VolumeStats
}

// Provider measures on demand. It remembers only the node's CPU time, to report a rate.
type Provider struct {
	cfg Config

	mu   sync.Mutex
	last cpuSample
}

// New returns a Provider.
func New(cfg Config) *Provider {
	p := &Provider{cfg: cfg}
	if proc, err := procfs.NewDefaultFS(); err == nil {
		if stat, err := proc.Stat(); err == nil {
			p.nodeCPU(stat) // the first sample, so that the first Summary has a rate
		}
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
