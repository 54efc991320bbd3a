package server

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"github.com/samber/lo"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/kubernetes/pkg/kubelet/metrics/collectors"
)

// processMetrics are the prefixes of the process's metrics that upstream's kubelet has too. The
// process has one registry, also for the API server and others that may run in it, and no way to
// gather only some of its metrics: the others, which have their own /metrics, are dropped.
var processMetrics = []string{"go_", "process_", "rest_client_", "kubernetes_build_info", "kubernetes_feature_enabled"}

func gatherProcess() ([]*dto.MetricFamily, error) {
	all, err := legacyregistry.DefaultGatherer.Gather()
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
		hasPrefix := func(prefix string) bool { return strings.HasPrefix(f.GetName(), prefix) }
		return !slices.ContainsFunc(processMetrics, hasPrefix)
	}), err
}

// metrics serves those of this agent and those of the process.
func (s *Server) metrics() http.Handler {
	own := prometheus.NewRegistry()
	own.MustRegister(s.requests.collectors()...)
	all := prometheus.Gatherers{prometheus.GathererFunc(gatherProcess), own, s.cfg.Metrics}
	// The failure of one gatherer must not hide the others.
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// resourceMetrics serves CPU and memory of the Summary as the metrics that metrics-server reads.
func resourceMetrics(stats Stats) http.Handler {
	registry := metrics.NewKubeRegistry()
	registry.CustomMustRegister(collectors.NewResourceMetricsCollector(summaries{stats}))
	return metrics.HandlerFor(registry, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
}

// summaries gives upstream's collector the Summary.
type summaries struct{ stats Stats }

// GetCPUAndMemoryStats implements stats.SummaryProvider. A collector has no context of its request.
func (s summaries) GetCPUAndMemoryStats(ctx context.Context) (*statsapi.Summary, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return s.stats.Summary(ctx, true)
}

// Get implements stats.SummaryProvider. The collector does not call it.
func (s summaries) Get(ctx context.Context, _ bool) (*statsapi.Summary, error) {
	return s.stats.Summary(ctx, false)
}

// requests are the metrics of requests to the server. Their names and labels are upstream's.
type requests struct {
	total    *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
	inFlight *prometheus.GaugeVec
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
		inFlight: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kubelet_http_inflight_requests", Help: "Number of requests that the node agent's HTTPS server is answering.",
		}, labels),
	}
}

func (r *requests) collectors() []prometheus.Collector {
	return []prometheus.Collector{r.total, r.seconds, r.inFlight}
}

// Values of the path label: a caller must not create series with unknown paths.
var (
	longRunning = []string{"exec", "attach", "portForward", "debug"}
	knownPaths  = append([]string{
		"metrics/cadvisor", "metrics/probes", "metrics/resource", "metrics", "stats", "pods", "runningpods", "healthz",
		"configz", "logs", "containerLogs", "run",
	}, longRunning...)
)

func pathLabel(path string) string {
	path = strings.TrimPrefix(path, "/")
	known, ok := lo.Find(knownPaths, func(known string) bool { return path == known || strings.HasPrefix(path, known+"/") })
	return lo.Ternary(ok, known, "other")
}

// count measures the requests to next.
func (r *requests) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		path, begun := pathLabel(req.URL.Path), time.Now()
		method := lo.Ternary(verbs[req.Method] == "", "other", req.Method)
		labels := []string{method, path, "readwrite", strconv.FormatBool(slices.Contains(longRunning, path))}
		r.total.WithLabelValues(labels...).Inc()
		inFlight := r.inFlight.WithLabelValues(labels...)
		inFlight.Inc()
		defer func() {
			inFlight.Dec()
			r.seconds.WithLabelValues(labels...).Observe(time.Since(begun).Seconds())
		}()
		next.ServeHTTP(w, req)
	})
}
