package pod

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// metrics of all workers. The names with the prefix kubelet_ are upstream's.
type metrics struct {
	actions  *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	started  prometheus.Histogram
	mu       sync.Mutex
	measured map[types.UID]bool
}

func newMetrics() *metrics {
	buckets := []float64{0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 15, 30, 60, 120, 300}
	return &metrics{
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flyball_kubelet_actions_total", Help: "Actions that pod workers planned, by kind.",
		}, []string{"action"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flyball_kubelet_action_duration_seconds", Help: "How long actions of pod workers took, by kind and result.",
			Buckets: buckets,
		}, []string{"action", "result"}),
		started: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_pod_start_total_duration_seconds", Help: "From the creation of a Pod until it was seen running.",
			Buckets: buckets,
		}),
		measured: map[types.UID]bool{},
	}
}

// Collectors returns the metrics of the Manager, for a registry.
func (m *Manager) Collectors() []prometheus.Collector {
	return []prometheus.Collector{m.metrics.actions, m.metrics.seconds, m.metrics.started}
}

func kindOf(a Action) string { return strings.TrimPrefix(fmt.Sprintf("%T", a), "pod.") }

func (m *metrics) acted(a Action) { m.actions.WithLabelValues(kindOf(a)).Inc() }

func (m *metrics) took(a Action, err error, d time.Duration) {
	result := "success"
	if err != nil {
		result = "error"
	}
	m.seconds.WithLabelValues(kindOf(a), result).Observe(d.Seconds())
}

// observe measures a start once, and only one that this process has seen from its beginning.
func (m *metrics) observe(pod *v1.Pod, status *v1.PodStatus, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	measured, known := m.measured[pod.UID]
	if !known {
		m.measured[pod.UID] = status.Phase != v1.PodPending
		return
	}
	if !measured && status.Phase == v1.PodRunning {
		m.measured[pod.UID] = true
		m.started.Observe(now.Sub(pod.CreationTimestamp.Time).Seconds())
	}
}

func (m *metrics) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.measured, uid)
}
