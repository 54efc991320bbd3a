package pod

import (
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func sumOf(t *testing.T, h prometheus.Histogram) (count uint64, sum float64) {
	t.Helper()
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum()
}

// TestStarts starts a Pod that is seen after 1 s, pulls from 2 to 6 s, of which an init container runs 2 s more, and runs after 10 s.
func TestStarts(t *testing.T) {
	m := newMetrics()
	created := time.Unix(1_700_000_000, 0)
	at := func(s int) time.Time { return created.Add(time.Duration(s) * time.Second) }
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", CreationTimestamp: metav1.NewTime(created)}}
	m.observe(pod, &v1.PodStatus{Phase: v1.PodPending}, at(1))
	m.took("u", PullImage{}, nil, at(2), 2*time.Second)
	m.took("u", PullImage{}, nil, at(3), 3*time.Second)
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

	m.observe(&v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "old"}}, status, at(1))
	m.observe(&v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "old"}}, status, at(2))
	if n, _ := sumOf(t, m.total); n != 1 {
		t.Errorf("a Pod that ran before the agent began is counted as a start")
	}
}
