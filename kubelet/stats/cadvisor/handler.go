//go:build linux

package cadvisor

import (
	"fmt"
	"net/http"
	"os"
	"slices"

	"github.com/google/cadvisor/lib/container"
	"github.com/google/cadvisor/lib/metrics"
	info "github.com/google/cadvisor/lib/model"
	libcgroups "github.com/opencontainers/cgroups"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"flyball.dev/kubelet/cgroups"
)

// Config of a handler. All fields are required.
type Config struct {
	Runtime runtimeapi.RuntimeServiceClient
	// Cgroups lists the cgroups to measure.
	Cgroups *cgroups.Manager
	// Capacity and System describe the host, as its Node does.
	Capacity v1.ResourceList
	System   v1.NodeSystemInfo
	// Dirs are on the file systems that are reported as the node's.
	Dirs []string
}

// NewHandler serves the metrics in Prometheus' text form.
func NewHandler(cfg Config) (http.Handler, error) {
	gather, err := newGatherer(cfg)
	if err != nil {
		return nil, err
	}
	// A family that cannot be read must not hide the others.
	return promhttp.HandlerFor(gather, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}), nil
}

func newGatherer(cfg Config) (prometheus.Gatherer, error) {
	of := kinds(pressure())
	s := &source{hostInfo: newHostInfo(cfg), cfg: cfg, kinds: of}
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		metrics.NewPrometheusMachineCollector(s, of),
		metrics.NewPrometheusCollector(s, labels, of, clock.RealClock{}, info.RequestOptions{}),
		fileSystems{dirs: cfg.Dirs},
	} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("registering the metrics of cgroups: %w", err)
		}
	}
	return without(registry, unmeasured(libcgroups.IsCgroup2UnifiedMode())), nil
}

// kinds of metrics that are measured; upstream's kubelet has the same. That of file systems is not
// one of them: with it the library reports counters of disks as 0, see fileSystems.
func kinds(pressure bool) container.MetricSet {
	of := container.MetricSet{
		container.CpuUsageMetrics: {}, container.MemoryUsageMetrics: {}, container.DiskIOMetrics: {},
		container.NetworkUsageMetrics: {}, container.ProcessMetrics: {}, container.OOMMetrics: {},
	}
	if pressure {
		of[container.PressureMetrics] = struct{}{}
	}
	return of
}

// pressure says whether the kernel measures per cgroup how long tasks wait (PSI).
func pressure() bool {
	_, err := os.Stat("/proc/pressure/cpu")
	return err == nil && libcgroups.IsCgroup2UnifiedMode()
}

// unmeasured are the metrics that the library reports as 0 because it has no figure.
func unmeasured(v2 bool) sets.Set[string] {
	never := sets.New(
		"container_health_state",                                     // CRI has no health checks
		"machine_nvm_capacity", "machine_nvm_avg_power_budget_watts", // need a C library
		"machine_dimm_count", "machine_dimm_capacity_bytes",
		"machine_cpu_books", "machine_cpu_drawers", // only s390 has them
		"container_fs_io_time_weighted_seconds_total", // of disks, not of cgroups
	)
	if v2 {
		return never.Insert("container_memory_failcnt", "container_memory_kernel_usage")
	}
	return never.Insert(
		"container_memory_events_high_total", "container_memory_events_max_total",
		"container_memory_file_dirty_bytes", "container_memory_file_writeback_bytes",
		"container_memory_pgscan_total", "container_memory_pgsteal_total",
		"container_memory_workingset_refault_file_total", "container_memory_workingset_refault_anon_total",
		"container_cpu_cfs_burst_periods_total", "container_cpu_cfs_burst_seconds_total",
	)
}

// without drops families by name.
func without(from prometheus.Gatherer, names sets.Set[string]) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		all, err := from.Gather()
		return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return names.Has(f.GetName()) }), err
	})
}
