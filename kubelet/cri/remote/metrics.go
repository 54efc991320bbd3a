package remote

import (
	"context"
	"path"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// metrics of one runtime. Their names and labels are upstream's.
type metrics struct {
	operations, failures *prometheus.CounterVec
	seconds              *prometheus.HistogramVec
	relist, interval     prometheus.Histogram

	mu sync.Mutex
	// begun is when the last relist began.
	begun time.Time
}

func newMetrics() *metrics {
	kind := []string{"operation_type"}
	return &metrics{
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_total", Help: "Number of calls of the container runtime, by operation.",
		}, kind),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_runtime_operations_errors_total", Help: "Number of calls of the container runtime that failed, by operation.",
		}, kind),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "kubelet_runtime_operations_duration_seconds", Help: "How long calls of the container runtime took, by operation.",
			Buckets: prometheus.ExponentialBuckets(.005, 2.5, 14),
		}, kind),
		relist: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_pleg_relist_duration_seconds", Help: "How long it took to list all that the container runtime has.",
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
		Name: "kubelet_pleg_last_seen_seconds", Help: "When the container runtime was last listed, in seconds since 1970.",
	}, func() float64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return float64(c.listed.UnixNano()) / float64(time.Second)
	})
	return []prometheus.Collector{m.operations, m.failures, m.seconds, m.relist, m.interval, seen, running{c}}
}

// operationOf is the name of an operation where upstream's is not that of the method.
var operationOf = map[string]string{
	"Version": "version", "Status": "status", "RuntimeConfig": "runtime_config", "UpdateRuntimeConfig": "update_runtime_config",
	"RunPodSandbox": "run_podsandbox", "StopPodSandbox": "stop_podsandbox", "RemovePodSandbox": "remove_podsandbox",
	"PodSandboxStatus": "podsandbox_status", "ListPodSandbox": "list_podsandbox",
	"UpdatePodSandboxResources": "update_podsandbox_resources",
	"PodSandboxStats":           "podsandbox_stats", "ListPodSandboxStats": "list_podsandbox_stats",
	"CreateContainer": "create_container", "StartContainer": "start_container", "StopContainer": "stop_container",
	"RemoveContainer": "remove_container", "ListContainers": "list_containers", "ContainerStatus": "container_status",
	"UpdateContainerResources": "update_container", "ReopenContainerLog": "reopen_container_log",
	"ContainerStats": "container_stats", "ListContainerStats": "list_container_stats",
	"ExecSync": "exec_sync", "Exec": "exec", "Attach": "attach", "PortForward": "port_forward",
	"ListImages": "list_images", "ImageStatus": "image_status", "PullImage": "pull_image", "RemoveImage": "remove_image",
	"ImageFsInfo": "image_fs_info",
}

// observe measures the calls.
func (m *metrics) observe(ctx context.Context, method string, req, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	kind, ok := operationOf[path.Base(method)]
	if !ok {
		kind = path.Base(method)
	}
	begun := time.Now()
	err := invoke(ctx, method, req, reply, conn, opts...)
	m.operations.WithLabelValues(kind).Inc()
	m.seconds.WithLabelValues(kind).Observe(time.Since(begun).Seconds())
	if err != nil {
		m.failures.WithLabelValues(kind).Inc()
	}
	return err
}

// relisting measures a relist that begins; what it returns is called at the end.
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
	runningContainers = prometheus.NewDesc("kubelet_running_containers", "Number of containers, by state.", []string{"container_state"}, nil)
)

// scrapeTimeout bounds what a scrape asks the runtime. It is well below the 10 s that Prometheus
// waits for all series together: one that hangs costs these series, and not the scrape.
const scrapeTimeout = 2 * time.Second

// running counts what of ours the runtime has when it is asked for.
type running struct{ client *Client }

// Describe implements prometheus.Collector.
func (running) Describe(ch chan<- *prometheus.Desc) { ch <- runningPods; ch <- runningContainers }

// Collect implements prometheus.Collector. Without an answer of the runtime nothing is reported.
func (r running) Collect(ch chan<- prometheus.Metric) {
	// A collector gets no context from its library.
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	sandboxes, err := r.client.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return
	}
	containers, err := r.client.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return
	}
	pods := map[string]bool{}
	for _, s := range sandboxes.Items {
		uid := s.GetMetadata().GetUid()
		if s.State == runtimeapi.PodSandboxState_SANDBOX_READY && r.client.Ours(types.UID(uid), s.Labels) {
			pods[uid] = true
		}
	}
	ch <- prometheus.MustNewConstMetric(runningPods, prometheus.GaugeValue, float64(len(pods)))
	states := map[cri.ContainerState]int{cri.Created: 0, cri.Running: 0, cri.Exited: 0, cri.Unknown: 0}
	for _, c := range containers.Containers {
		if r.client.Ours(types.UID(c.Labels[cri.LabelPodUID]), c.Labels) {
			states[stateOf(c.State)]++
		}
	}
	for state, n := range states {
		ch <- prometheus.MustNewConstMetric(runningContainers, prometheus.GaugeValue, float64(n), string(state))
	}
}
