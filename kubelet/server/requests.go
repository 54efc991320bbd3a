package server

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// requests are metrics of what is asked of the server. Their names and labels are upstream's.
type requests struct {
	total   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	now     *prometheus.GaugeVec
}

func newRequests() *requests {
	labels := []string{"method", "path", "server_type", "long_running"}
	return &requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_http_requests_total", Help: "Number of requests to the node agent's HTTPS server.",
		}, labels),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_http_requests_duration_seconds", Help: "How long requests to the node agent's HTTPS server took.",
		}, labels),
		now: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_http_inflight_requests", Help: "Number of requests to the node agent's HTTPS server that are being answered.",
		}, labels),
	}
}

func (r *requests) collectors() []prometheus.Collector {
	return []prometheus.Collector{r.total, r.seconds, r.now}
}

// Values of the path label: a path that is not known must not make a series of its own.
var (
	longRunning = []string{"exec", "attach", "portForward", "debug"}
	knownPaths  = append([]string{
		"metrics/cadvisor", "metrics/probes", "metrics/resource", "metrics", "stats", "pods", "runningpods", "healthz", "configz",
		"logs", "containerLogs", "run",
	}, longRunning...)
)

func pathOf(path string) string {
	path = strings.TrimPrefix(path, "/")
	for _, known := range knownPaths {
		if path == known || strings.HasPrefix(path, known+"/") {
			return known
		}
	}
	return "other"
}

// methodOf keeps callers from making up series.
func methodOf(r *http.Request) string {
	if _, ok := verbs[r.Method]; ok {
		return r.Method
	}
	return "other"
}

// count measures what is asked of next.
func (r *requests) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path := pathOf(req.URL.Path)
		labels := []string{methodOf(req), path, "readwrite", strconv.FormatBool(slices.Contains(longRunning, path))}
		r.total.WithLabelValues(labels...).Inc()
		now, begun := r.now.WithLabelValues(labels...), time.Now()
		now.Inc()
		defer func() {
			now.Dec()
			r.seconds.WithLabelValues(labels...).Observe(time.Since(begun).Seconds())
		}()
		next.ServeHTTP(w, req)
	})
}
