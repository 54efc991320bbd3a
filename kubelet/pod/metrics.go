package pod

import (
	"cmp"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"flyball.dev/kubelet/pod/plan"
)

// metrics of all workers. The names with the prefix kubelet_ are upstream's.
type metrics struct {
	actions *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	syncs   *prometheus.HistogramVec
	// total, running and sli are durations of a Pod's start, see their help.
	total, running, sli prometheus.Histogram
	terminated          *prometheus.CounterVec

	mu     sync.Mutex
	starts map[types.UID]*start
}

type start struct {
	measured bool
	seen     time.Time
	pulls    []span // when images were pulled
}

type span struct{ begin, end time.Time }

func newMetrics() *metrics {
	startBuckets := []float64{.1, .2, .3, .5, .75, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 600, 900, 1800, 3600}
	buckets := []float64{0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 15, 30, 60, 120, 300}
	return &metrics{
		actions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "flyball_kubelet_actions_total", Help: "Actions that pod workers planned, by kind.",
		}, []string{"action"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "flyball_kubelet_action_duration_seconds", Help: "How long actions of pod workers took, by kind and result.",
			Buckets: buckets,
		}, []string{"action", "result"}),
		syncs: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "kubelet_pod_worker_duration_seconds",
			Help:    "How long a sync of a Pod took, without the actions that it began, by what there was to do: create, sync or kill.",
			Buckets: append([]float64{0.001, 0.0025}, prometheus.DefBuckets...),
		}, []string{"operation_type"}),
		running: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_pod_start_duration_seconds", Help: "From when this node first saw a Pod until it was seen running.",
			Buckets: startBuckets,
		}),
		sli: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "kubelet_pod_start_sli_duration_seconds",
			Help:    "From the creation of a Pod until it was seen running, without pulls of images and init containers.",
			Buckets: startBuckets,
		}),
		total: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kubelet_pod_start_total_duration_seconds", Help: "From the creation of a Pod until it was seen running.",
			Buckets: buckets,
		}),
		terminated: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kubelet_terminated_containers_total", Help: "Containers that ended, by type, exit code and reason.",
		}, []string{"container_type", "exit_code", "reason"}),
		starts: map[types.UID]*start{},
	}
}

// Collectors returns the metrics of the Manager, for a registry.
func (m *Manager) Collectors() []prometheus.Collector {
	c := m.metrics
	return []prometheus.Collector{c.actions, c.seconds, c.syncs, c.total, c.running, c.sli, c.terminated}
}

func kindOf(a plan.Action) string { return reflect.TypeOf(a).Name() }

func (m *metrics) acted(a plan.Action) { m.actions.WithLabelValues(kindOf(a)).Inc() }

func (m *metrics) took(uid types.UID, a plan.Action, err error, begun time.Time, d time.Duration) {
	result := "success"
	if err != nil {
		result = "error"
	}
	m.seconds.WithLabelValues(kindOf(a), result).Observe(d.Seconds())
	if _, ok := a.(plan.PullImage); !ok {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.starts[uid]; s != nil && !s.measured {
		s.pulls = append(s.pulls, span{begun, begun.Add(d)})
	}
}

// synced measures a sync that left s.
func (m *metrics) synced(s *plan.State, d time.Duration) {
	kind := "sync"
	switch {
	case s.Pod == nil || s.Pod.DeletionTimestamp != nil:
		kind = "kill"
	case len(s.Runtime.Sandboxes) == 0:
		kind = "create"
	}
	m.syncs.WithLabelValues(kind).Observe(d.Seconds())
}

// observe measures a start once, and only if this process has seen it from its beginning. A static
// Pod has no time of creation, and its start is not measured.
func (m *metrics) observe(pod *v1.Pod, status *v1.PodStatus, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.starts[pod.UID]
	if s == nil {
		m.starts[pod.UID] = &start{measured: status.Phase != v1.PodPending || pod.CreationTimestamp.IsZero(), seen: now}
		return
	}
	if s.measured || status.Phase != v1.PodRunning {
		return
	}
	s.measured = true
	total := now.Sub(pod.CreationTimestamp.Time)
	m.total.Observe(total.Seconds())
	m.running.Observe(now.Sub(s.seen).Seconds())
	// An image is pulled while an init container runs, too, or while another image is.
	m.sli.Observe(max(0, total-together(append(s.pulls, ofInit(status)...))).Seconds())
	s.pulls = nil
}

// ofInit are when the init containers ran that have ended.
func ofInit(status *v1.PodStatus) (runs []span) {
	for _, c := range status.InitContainerStatuses {
		if t := c.State.Terminated; t != nil {
			runs = append(runs, span{t.StartedAt.Time, t.FinishedAt.Time})
		}
	}
	return runs
}

// together is how long at least one of the spans lasted.
func together(spans []span) (sum time.Duration) {
	slices.SortFunc(spans, func(a, b span) int { return a.begin.Compare(b.begin) })
	var until time.Time
	for _, s := range spans {
		if s.begin.Before(until) {
			s.begin = until
		}
		if s.end.After(s.begin) {
			sum += s.end.Sub(s.begin)
			until = s.end
		}
	}
	return sum
}

func (m *metrics) ended(before, after *v1.PodStatus) {
	for kind, lists := range map[string][2][]v1.ContainerStatus{
		"init_container":      {before.InitContainerStatuses, after.InitContainerStatuses},
		"container":           {before.ContainerStatuses, after.ContainerStatuses},
		"ephemeral_container": {before.EphemeralContainerStatuses, after.EphemeralContainerStatuses},
	} {
		known := sets.New[string]()
		for _, c := range lists[0] {
			known.Insert(newestEnd(c).ContainerID)
		}
		for _, c := range lists[1] {
			if end := newestEnd(c); end.ContainerID != "" && !known.Has(end.ContainerID) {
				m.terminated.WithLabelValues(kind, strconv.Itoa(int(end.ExitCode)), end.Reason).Inc()
			}
		}
	}
}

// newestEnd is the end of a container's newest instance that has ended: the next can run before
// anybody sees it.
func newestEnd(c v1.ContainerStatus) v1.ContainerStateTerminated {
	return *cmp.Or(c.State.Terminated, c.LastTerminationState.Terminated, &v1.ContainerStateTerminated{})
}

func (m *metrics) forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.starts, uid)
}
