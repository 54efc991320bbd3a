package volumes

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// metrics of the volumes. Their names and labels are upstream's.
type metrics struct {
	seconds *prometheus.HistogramVec

	mu sync.Mutex
	// pods are the volumes of each Pod, by plugin, and whether they are mounted.
	pods map[types.UID]counted
}

type counted struct {
	plugins map[string]int
	mounted bool
}

func newMetrics() *metrics {
	return &metrics{
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "storage_operation_duration_seconds", Help: "How long operations on volumes took, by plugin and result.",
			Buckets: []float64{.001, .01, .1, .25, .5, 1, 2.5, 5, 10, 15, 25, 50, 120, 300, 600},
		}, []string{"volume_plugin", "operation_name", "status", "migrated"}),
		pods: map[types.UID]counted{},
	}
}

// Collectors returns the metrics of the Manager, for a registry.
func (m *Manager) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.metrics.seconds, total{m.metrics}}
}

func (m *metrics) took(plugin, operation string, err error, d time.Duration) {
	status := "success"
	if err != nil {
		status = "fail-unknown"
	}
	m.seconds.WithLabelValues(plugin, operation, status, "false").Observe(d.Seconds())
}

// count notes which volumes a Pod wants, and whether it has them.
func (m *Manager) count(pod *v1.Pod, mounted bool) {
	c := counted{plugins: map[string]int{}, mounted: mounted}
	used := usedVolumes(pod)
	for i := range pod.Spec.Volumes {
		if vol := &pod.Spec.Volumes[i]; used.Has(vol.Name) {
			if p := m.pluginFor(Spec{Pod: pod, Volume: vol}); p != nil {
				c.plugins[p.Name()]++
			}
		}
	}
	m.metrics.mu.Lock()
	defer m.metrics.mu.Unlock()
	m.metrics.pods[pod.UID] = c
}

func (m *metrics) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.pods, uid)
}

var totalVolumes = prometheus.NewDesc("volume_manager_total_volumes",
	"Number of volumes of Pods, by plugin: those that are wanted (desired_state_of_world) and "+
		"those that are mounted (actual_state_of_world).",
	[]string{"plugin_name", "state"}, nil)

// total counts volumes when metrics are collected.
type total struct{ *metrics }

// Describe implements prometheus.Collector.
func (total) Describe(ch chan<- *prometheus.Desc) { ch <- totalVolumes }

// Collect implements prometheus.Collector.
func (t total) Collect(ch chan<- prometheus.Metric) {
	t.mu.Lock()
	defer t.mu.Unlock()
	sums := map[[2]string]int{}
	for _, c := range t.pods {
		for plugin, n := range c.plugins {
			sums[[2]string{plugin, "desired_state_of_world"}] += n
			if c.mounted {
				sums[[2]string{plugin, "actual_state_of_world"}] += n
			}
		}
	}
	for labels, n := range sums {
		ch <- prometheus.MustNewConstMetric(totalVolumes, prometheus.GaugeValue, float64(n), labels[0], labels[1])
	}
}
