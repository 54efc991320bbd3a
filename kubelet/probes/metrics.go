package probes

import (
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/kubernetes/pkg/probe"
)

// probeMetrics are upstream's prober_* metrics, in a registry of the Manager's
// own: the kubelet serves them under /metrics/probes, apart from the rest.
type probeMetrics struct {
	registry metrics.KubeRegistry
	total    *metrics.CounterVec
	duration *metrics.HistogramVec
}

func newMetrics() *probeMetrics {
	m := &probeMetrics{
		registry: metrics.NewKubeRegistry(),
		total: metrics.NewCounterVec(&metrics.CounterOpts{
			Subsystem: "prober", Name: "probe_total", StabilityLevel: metrics.BETA,
			Help: "Number of startup, liveness and readiness probes of a container, by result.",
		}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"}),
		duration: metrics.NewHistogramVec(&metrics.HistogramOpts{
			Subsystem: "prober", Name: "probe_duration_seconds", StabilityLevel: metrics.ALPHA,
			Help: "Time that a probe took, in seconds.",
		}, []string{"probe_type", "container", "pod", "namespace"}),
	}
	m.registry.MustRegister(m.total, m.duration)
	return m
}

// MetricsHandler serves the metrics of the probes.
func (m *Manager) MetricsHandler() http.Handler {
	return metrics.HandlerFor(m.metrics.registry, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
}

func (m *probeMetrics) count(pod *v1.Pod, key loopKey, got probe.Result, took time.Duration) {
	m.total.With(resultLabels(pod, key, got)).Inc()
	if got != probe.Failure {
		m.duration.With(durationLabels(pod, key)).Observe(took.Seconds())
	}
}

// forget drops the series of a probe that is gone: they are labelled by pod, and
// would pile up for as long as the agent runs.
func (m *probeMetrics) forget(pod *v1.Pod, key loopKey) {
	for _, o := range []probe.Result{probe.Success, probe.Failure, probe.Unknown} {
		m.total.Delete(resultLabels(pod, key, o))
	}
	m.duration.Delete(durationLabels(pod, key))
}

func resultLabels(pod *v1.Pod, key loopKey, got probe.Result) map[string]string {
	result := map[probe.Result]string{probe.Success: "successful", probe.Failure: "failed", probe.Unknown: "unknown"}[got]
	labels := durationLabels(pod, key)
	labels["result"], labels["pod_uid"] = result, string(pod.UID)
	return labels
}

func durationLabels(pod *v1.Pod, key loopKey) map[string]string {
	return map[string]string{
		"probe_type": string(key.kind),
		"container":  key.container, "pod": pod.Name, "namespace": pod.Namespace,
	}
}
