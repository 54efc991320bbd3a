//go:build linux

package cgroups

import (
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func newSeconds() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "kubelet_cgroup_manager_duration_seconds",
		Help: "How long it took to create, update or destroy a cgroup of a Pod.",
	}, []string{"operation_type"})
}

// Collectors returns the metrics of the Manager, for a registry.
func (m *Manager) Collectors() []prometheus.Collector { return []prometheus.Collector{m.seconds} }

// measure begins to measure an operation. The function that it returns ends it.
func (m *Manager) measure(operation string) func() {
	begun := time.Now()
	return func() { m.seconds.WithLabelValues(operation).Observe(time.Since(begun).Seconds()) }
}

// ensuring is the kind of operation that ensuring a cgroup is.
func (m *Manager) ensuring(at string) string {
	for _, dir := range m.hierarchy.dirs(at) {
		if _, err := os.Stat(dir); err != nil {
			return "create"
		}
	}
	return "update"
}
