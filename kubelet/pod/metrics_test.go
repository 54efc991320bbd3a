package pod

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"flyball.dev/kubelet/pod/plan"
)

func sumOf(t *testing.T, h prometheus.Histogram) (count uint64, sum float64) {
	t.Helper()
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum()
}

// TestStarts starts a Pod that is seen after 1 s, pulls from 2 to 6 s, has an init container that
// runs for 2 s after that, and runs after 10 s.
func TestStarts(t *testing.T) {
	m := newMetrics()
	created := time.Unix(1_700_000_000, 0)
	at := func(s int) time.Time { return created.Add(time.Duration(s) * time.Second) }
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", CreationTimestamp: metav1.NewTime(created)}}
	m.observe(pod, &v1.PodStatus{Phase: v1.PodPending}, at(1))
	m.took("u", plan.PullImage{}, nil, at(2), 2*time.Second)
	m.took("u", plan.PullImage{}, nil, at(3), 3*time.Second)
	status := &v1.PodStatus{Phase: v1.PodRunning, InitContainerStatuses: []v1.ContainerStatus{{State: v1.ContainerState{
		Terminated: &v1.ContainerStateTerminated{StartedAt: metav1.NewTime(at(6)), FinishedAt: metav1.NewTime(at(8))},
	}}}}
	m.observe(pod, status, at(10))
	m.observe(pod, status, at(20)) // once only

	for name, tc := range map[string]struct {
		reason string
		got    prometheus.Histogram
		want   float64
	}{
		"total":   {"From its creation.", m.total, 10},
		"running": {"From when it was seen.", m.running, 9},
		"sli":     {"Without 4 s of pulls, which overlapped, and 2 s of its init container.", m.sli, 4},
	} {
		if n, sum := sumOf(t, tc.got); n != 1 || sum != tc.want {
			t.Errorf("%s: %s got %d starts of %v s, want one of %v s", name, tc.reason, n, sum, tc.want)
		}
	}

	old, static := pod.DeepCopy(), &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "static"}}
	old.UID = "old"
	m.observe(old, status, at(1))
	m.observe(old, status, at(2))
	m.observe(static, &v1.PodStatus{Phase: v1.PodPending}, at(1))
	m.observe(static, status, at(2))
	if n, _ := sumOf(t, m.total); n != 1 {
		t.Errorf("a static Pod, or one that ran before the agent began, is counted as a start")
	}
}

// TestTimeOfPullsAndInitContainers: no second is taken off twice, and none that was spent
// otherwise.
func TestTimeOfPullsAndInitContainers(t *testing.T) {
	type run struct{ from, to int } // seconds since the Pod was created; it runs after 30 s
	for name, tc := range map[string]struct {
		reason       string
		pulls, inits []run
		want         float64
	}{
		"Nothing":  {reason: "all images are present", want: 30},
		"InTurns":  {reason: "init containers between pulls", pulls: []run{{1, 3}, {7, 9}}, inits: []run{{3, 7}}, want: 22},
		"Gap":      {reason: "from 3 to 10 s it was not pulled", pulls: []run{{1, 3}, {10, 12}}, want: 26},
		"Overlap":  {reason: "the next image is pulled meanwhile", pulls: []run{{1, 6}, {2, 4}}, inits: []run{{3, 8}}, want: 23},
		"Unsorted": {reason: "pulls are recorded at their end", pulls: []run{{5, 6}, {1, 9}}, want: 22},
		"Clock":    {reason: "a clock that was set back ends before the beginning", inits: []run{{8, 5}}, want: 30},
	} {
		t.Run(name, func(t *testing.T) {
			m, created := newMetrics(), time.Unix(1_700_000_000, 0)
			at := func(s int) time.Time { return created.Add(time.Duration(s) * time.Second) }
			pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", CreationTimestamp: metav1.NewTime(created)}}
			m.observe(pod, &v1.PodStatus{Phase: v1.PodPending}, at(1))
			for _, p := range tc.pulls {
				m.took("u", plan.PullImage{}, nil, at(p.from), at(p.to).Sub(at(p.from)))
			}
			status := &v1.PodStatus{Phase: v1.PodRunning}
			for _, i := range tc.inits {
				status.InitContainerStatuses = append(status.InitContainerStatuses, v1.ContainerStatus{State: v1.ContainerState{
					Terminated: &v1.ContainerStateTerminated{StartedAt: metav1.NewTime(at(i.from)), FinishedAt: metav1.NewTime(at(i.to))},
				}})
			}
			m.observe(pod, status, at(30))
			if _, got := sumOf(t, m.sli); got != tc.want {
				t.Errorf("%s: the start took %v s, want %v s", tc.reason, got, tc.want)
			}
		})
	}
}

// TestEnded counts each end once, also of a container that runs again by the time of the next
// status.
func TestEnded(t *testing.T) {
	terminated := func(id string, code int32) v1.ContainerState {
		return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ContainerID: id, ExitCode: code, Reason: "Error"}}
	}
	status := func(now, last v1.ContainerState) *v1.PodStatus {
		return &v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{Name: "c", State: now, LastTerminationState: last}}}
	}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	m := newMetrics()
	statuses := []*v1.PodStatus{
		{},
		status(running, v1.ContainerState{}),
		status(terminated("1", 139), v1.ContainerState{}),
		status(running, terminated("1", 139)),
		status(running, terminated("2", 1)),
		status(running, terminated("2", 1)),
	}
	for i := range statuses[1:] {
		m.ended(statuses[i], statuses[i+1])
	}
	for code, want := range map[string]float64{"139": 1, "1": 1} {
		if got := testutil.ToFloat64(m.terminated.WithLabelValues("container", code, "Error")); got != want {
			t.Errorf("%v containers ended with exit code %s, want %v", got, code, want)
		}
	}
}

// TestActionLabels keeps the values of the label action, which users query for.
func TestActionLabels(t *testing.T) {
	m := newMetrics()
	m.acted(plan.MountVolumes{})
	m.took("u", plan.MountVolumes{}, nil, time.Now(), time.Second)
	if got := testutil.ToFloat64(m.actions.WithLabelValues("MountVolumes")); got != 1 {
		t.Errorf("%v actions are counted as MountVolumes, want 1", got)
	}
	if n, _ := sumOf(t, m.seconds.WithLabelValues("MountVolumes", "success").(prometheus.Histogram)); n != 1 {
		t.Errorf("%d durations, want 1", n)
	}
}
