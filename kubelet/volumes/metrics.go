package volumes

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Names and labels of the metrics are upstream's.
func newSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "storage_operation_duration_seconds", Help: "How long operations on volumes took, by plugin and result.",
		Buckets: []float64{.001, .01, .1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
	}, []string{"volume_plugin", "operation_name", "status", "migrated"})
}

var totalVolumes = prometheus.NewDesc("volume_manager_total_volumes",
	"Number of volumes of Pods, by plugin: those that are wanted (desired_state_of_world) and "+
		"those that are mounted (actual_state_of_world).",
	[]string{"plugin_name", "state"}, nil)

// Collectors returns the metrics of the Manager, for a registry.
func (m *Manager) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.seconds, total{m}, claimSizes{m}}
}

// measure an operation of a plugin that has ended.
func (m *Manager) measure(plugin, operation string, begun time.Time, err error) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	m.seconds.WithLabelValues(plugin, operation, status, "false").Observe(time.Since(begun).Seconds())
}

// total counts volumes when metrics are collected.
type total struct{ m *Manager }

// Describe implements prometheus.Collector.
func (total) Describe(ch chan<- *prometheus.Desc) { ch <- totalVolumes }

// Collect implements prometheus.Collector.
func (t total) Collect(ch chan<- prometheus.Metric) {
	sums := map[[2]string]int{}
	t.m.mu.Lock()
	for _, s := range t.m.states {
		for _, spec := range specsOf(s.pod.Load()) {
			if p := t.m.pluginFor(t.m.claimed(spec)); p != nil {
				sums[[2]string{p.Name(), "desired_state_of_world"}]++
				if s.mounted.Load() != nil {
					sums[[2]string{p.Name(), "actual_state_of_world"}]++
				}
			}
		}
	}
	t.m.mu.Unlock()
	for labels, n := range sums {
		ch <- prometheus.MustNewConstMetric(totalVolumes, prometheus.GaugeValue, float64(n), labels[0], labels[1])
	}
}

// claimFigures are the metrics of the volumes of claims.
var claimFigures = map[*prometheus.Desc]func(statsapi.FsStats) *uint64{
	claimDesc("capacity_bytes", "Size of the volume."):                 func(s statsapi.FsStats) *uint64 { return s.CapacityBytes },
	claimDesc("available_bytes", "Bytes of the volume that are free."): func(s statsapi.FsStats) *uint64 { return s.AvailableBytes },
	claimDesc("used_bytes", "Bytes of the volume that are used."):      func(s statsapi.FsStats) *uint64 { return s.UsedBytes },
	claimDesc("inodes", "Inodes that the volume can have."):            func(s statsapi.FsStats) *uint64 { return s.Inodes },
	claimDesc("inodes_free", "Inodes of the volume that are free."):    func(s statsapi.FsStats) *uint64 { return s.InodesFree },
	claimDesc("inodes_used", "Inodes of the volume that are used."):    func(s statsapi.FsStats) *uint64 { return s.InodesUsed },
}

func claimDesc(name, help string) *prometheus.Desc {
	return prometheus.NewDesc("kubelet_volume_stats_"+name, help, []string{"namespace", "persistentvolumeclaim"}, nil)
}

// claimSizes measures the volumes of claims when metrics are collected. A figure that is not known, such
// as the use of a block device, is left out.
type claimSizes struct{ m *Manager }

// Describe implements prometheus.Collector.
func (claimSizes) Describe(ch chan<- *prometheus.Desc) {
	for desc := range claimFigures {
		ch <- desc
	}
}

// Collect implements prometheus.Collector.
func (c claimSizes) Collect(ch chan<- prometheus.Metric) {
	for claim, stats := range c.m.claimStats(context.Background()) {
		for desc, value := range claimFigures {
			if n := value(stats); n != nil {
				ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(*n), claim.Namespace, claim.Name)
			}
		}
	}
}
