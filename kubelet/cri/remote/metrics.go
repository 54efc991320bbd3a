package remote

import (
	"context"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/samber/lo"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// metrics of one runtime. Their names and labels are upstream's.
type metrics struct {
	operations, failures *prometheus.CounterVec
	seconds              *prometheus.HistogramVec
	relist, interval     prometheus.Histogram

	mu    sync.Mutex
	begun time.Time // of the last relist
}

func newMetrics() *metrics {
	kind := []string{"operation_type"}
	return &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_total", Help: "Number of calls of the container runtime, by operation.",
		}, kind),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_errors_total",
			Help: "Number of calls of the container runtime that failed, by operation.",
		}, kind),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kubelet_runtime_operations_duration_seconds",
			Help:    "How long calls of the container runtime took, by operation.",
			Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14),
		}, kind),
		relist: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_pleg_relist_duration_seconds",
			Help: "How long it took to list all sandboxes and containers of the container runtime.",
		}),
		interval: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_pleg_relist_interval_seconds", Help: "Time between the beginnings of two relists.",
			Buckets: []float64{.1, .5, 1, 2, 5, 10, 20, 30, 40, 60, 120},
		}),
	}
}

// Collectors returns the metrics of the Client, for a registry.
func (c *Client) Collectors() []prometheus.Collector {
	m := c.metrics
	seen := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubelet_pleg_last_seen_seconds",
		Help: "When the container runtime was last listed, in seconds since 1970.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(c.listed.UnixNano()) / float64(time.Second)
	})
	return []prometheus.Collector{m.operations, m.failures, m.seconds, m.relist, m.interval, seen, running{c}}
}

// operation is upstream's name for a method.
func operation(method string) string {
	name := path.Base(method)
	if name == "UpdateContainerResources" {
		return "update_container"
	}
	return lo.SnakeCase(strings.ReplaceAll(name, "PodSandbox", "Podsandbox"))
}

// observe measures the calls.
func (m *metrics) observe(
	ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
	invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
) error {
	kind := operation(method)
	begun := time.Now()
	err := invoke(ctx, method, req, reply, conn, opts...)
	m.operations.WithLabelValues(kind).Inc()
	m.seconds.WithLabelValues(kind).Observe(time.Since(begun).Seconds())
	if err != nil {
		m.failures.WithLabelValues(kind).Inc()
	}
	return err
}

// relisting begins to measure a relist. The function that it returns ends it.
func (m *metrics) relisting() func() {
	begun := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.begun.IsZero() {
		m.interval.Observe(begun.Sub(m.begun).Seconds())
	}
	m.begun = begun
	return func() { m.relist.Observe(time.Since(begun).Seconds()) }
}

var (
	runningPods       = prometheus.NewDesc("kubelet_running_pods", "Number of Pods whose sandbox is ready.", nil, nil)
	runningContainers = prometheus.NewDesc("kubelet_running_containers", "Number of containers, by state.",
		[]string{"container_state"}, nil)
)

// scrapeTimeout bounds the calls of the runtime in a scrape. It is well below the 10 s that
// Prometheus waits for all series: a runtime that hangs costs these series, and not the scrape.
const scrapeTimeout = 2 * time.Second

// running counts our sandboxes and containers at each scrape.
type running struct{ client *Client }

// Describe implements prometheus.Collector.
func (running) Describe(ch chan<- *prometheus.Desc) { ch <- runningPods; ch <- runningContainers }

// Collect implements prometheus.Collector. It reports nothing if the runtime does not answer.
func (r running) Collect(ch chan<- prometheus.Metric) {
	// The interface has no context.
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	sandboxes, containers, err := r.client.list(ctx)
	if err != nil {
		return
	}
	pods := lo.Uniq(lo.FilterMap(sandboxes, func(s *runtimeapi.PodSandbox, _ int) (string, bool) {
		return s.GetMetadata().GetUid(), s.State == runtimeapi.PodSandboxState_SANDBOX_READY
	}))
	ch <- prometheus.MustNewConstMetric(runningPods, prometheus.GaugeValue, float64(len(pods)))
	for _, state := range []cri.ContainerState{cri.Created, cri.Running, cri.Exited, cri.Unknown} {
		n := lo.CountBy(containers, func(c *runtimeapi.Container) bool { return stateOf(c.State) == state })
		ch <- prometheus.MustNewConstMetric(runningContainers, prometheus.GaugeValue, float64(n), string(state))
	}
}
