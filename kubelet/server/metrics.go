package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/klog/v2"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// The metrics of /metrics/resource are a stable API: metrics-server, and with it
// kubectl top and the horizontal pod autoscaler, read exactly these.
var (
	ofContainer = []string{"container", "pod", "namespace"}
	ofPod       = []string{"pod", "namespace"}

	nodeCPU         = stable("node_cpu_usage_seconds_total", "CPU time of the node since it booted, in core-seconds", nil)
	nodeMemory      = stable("node_memory_working_set_bytes", "Working set of the node, in bytes", nil)
	containerStart  = stable("container_start_time_seconds", "When the container started, in seconds since 1970", ofContainer)
	containerCPU    = stable("container_cpu_usage_seconds_total", "CPU time of the container since it started, in core-seconds", ofContainer)
	containerMemory = stable("container_memory_working_set_bytes", "Working set of the container, in bytes", ofContainer)
	podCPU          = stable("pod_cpu_usage_seconds_total", "CPU time of the pod since it started, in core-seconds", ofPod)
	podMemory       = stable("pod_memory_working_set_bytes", "Working set of the pod, in bytes", ofPod)
	scrapeError     = stable("resource_scrape_error", "1 if the figures could not be read, 0 otherwise", nil)
)

func stable(name, help string, labels []string) *metrics.Desc {
	return metrics.NewDesc(name, help, labels, nil, metrics.STABLE, "")
}

// ofProcess are the metrics of the process that upstream's kubelet has too, by prefix. All series of
// the process are gathered for that, and those of the API server and the others that may run in it
// dropped: there is one registry for all, which cannot be asked for some. They have a /metrics of
// their own.
var ofProcess = []string{"go_", "process_", "rest_client_", "kubernetes_build_info", "kubernetes_feature_enabled"}

func process() ([]*dto.MetricFamily, error) {
	all, err := legacyregistry.DefaultGatherer.Gather()
	return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool {
		return !slices.ContainsFunc(ofProcess, func(prefix string) bool { return strings.HasPrefix(f.GetName(), prefix) })
	}), err
}

// metrics serves those of this agent and those of the process.
func (s *Server) metrics() http.Handler {
	own := prometheus.NewRegistry()
	own.MustRegister(s.requests.collectors()...)
	all := prometheus.Gatherers{prometheus.GathererFunc(process), own}
	if s.cfg.Metrics != nil {
		all = append(all, s.cfg.Metrics)
	}
	// What one of them cannot tell must not hide the rest.
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// resourceMetrics serves the Summary in Prometheus' form.
func resourceMetrics(stats Stats) http.Handler {
	registry := metrics.NewKubeRegistry()
	registry.CustomMustRegister(&collector{stats: stats})
	return metrics.HandlerFor(registry, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
}

type collector struct {
	metrics.BaseStableCollector
	stats Stats
}

func (c *collector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{
		nodeCPU, nodeMemory, containerStart, containerCPU, containerMemory, podCPU, podMemory, scrapeError,
	} {
		ch <- d
	}
}

func (c *collector) CollectWithStability(ch chan<- metrics.Metric) {
	// A collector gets no context from its library.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	summary, err := c.stats.Summary(ctx, true)
	if err != nil {
		klog.Background().V(2).Info("Measuring for /metrics/resource failed", "err", err)
		ch <- metrics.NewLazyConstMetric(scrapeError, metrics.GaugeValue, 1)
		return
	}
	ch <- metrics.NewLazyConstMetric(scrapeError, metrics.GaugeValue, 0)
	cpu(ch, nodeCPU, summary.Node.CPU)
	memory(ch, nodeMemory, summary.Node.Memory)
	for _, p := range summary.Pods {
		name, namespace := p.PodRef.Name, p.PodRef.Namespace
		for _, c := range p.Containers {
			if !c.StartTime.IsZero() {
				ch <- metrics.NewLazyConstMetric(containerStart, metrics.GaugeValue,
					float64(c.StartTime.UnixNano())/float64(time.Second), c.Name, name, namespace)
			}
			cpu(ch, containerCPU, c.CPU, c.Name, name, namespace)
			memory(ch, containerMemory, c.Memory, c.Name, name, namespace)
		}
		cpu(ch, podCPU, p.CPU, name, namespace)
		memory(ch, podMemory, p.Memory, name, namespace)
	}
}

func cpu(ch chan<- metrics.Metric, desc *metrics.Desc, s *statsapi.CPUStats, labels ...string) {
	if s == nil || s.UsageCoreNanoSeconds == nil {
		return
	}
	ch <- metrics.NewLazyMetricWithTimestamp(s.Time.Time, metrics.NewLazyConstMetric(desc, metrics.CounterValue,
		float64(*s.UsageCoreNanoSeconds)/float64(time.Second), labels...))
}

func memory(ch chan<- metrics.Metric, desc *metrics.Desc, s *statsapi.MemoryStats, labels ...string) {
	if s == nil || s.WorkingSetBytes == nil {
		return
	}
	ch <- metrics.NewLazyMetricWithTimestamp(s.Time.Time, metrics.NewLazyConstMetric(desc, metrics.GaugeValue,
		float64(*s.WorkingSetBytes), labels...))
}
