package pod

import (
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// TestRefusedPod does not fit: it fails, with the reason and no word of its containers.
func TestRefusedPod(t *testing.T) {
	r := newRig(t)
	r.allocatable = list("cpu", "1")
	r.start()
	r.create(asking("cpu", "2"))
	why := "Node didn't have enough resource: cpu, requested: 2000, used: 0, capacity: 1000"
	r.event("Warning OutOfcpu " + why)
	r.eventually("the Pod has failed", r.phase(v1.PodFailed))
	check := func() {
		t.Helper()
		st := r.pod().Status
		if st.Reason != "OutOfcpu" || st.Message != "Pod was rejected: "+why || len(st.ContainerStatuses) > 0 || st.StartTime == nil {
			t.Errorf("the status is %+v", st)
		}
	}
	check()
	r.stop()
	r.start()
	r.eventually("the agent knows the Pod again", r.node.clean)
	check()
	if !r.runtime.empty() {
		t.Error("the runtime got the Pod")
	}
	r.delete(0)
	r.nothingLeft()
}

// TestAdmittedForEver changes the node under a Pod that runs on it.
func TestAdmittedForEver(t *testing.T) {
	r := newRig(t)
	r.labels, r.allocatable = map[string]string{"disk": "fast"}, list("cpu", "1")
	r.start()
	r.create(func(p *v1.Pod) {
		asking("cpu", "1")(p)
		p.Spec.NodeSelector = r.labels
	})
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.stop()
	r.labels, r.allocatable = nil, list("cpu", "100m")
	for _, lost := range []string{"nothing", "the status"} {
		if lost == "the status" { // it had not been written when the agent was killed
			pod := r.pod().DeepCopy()
			pod.Status = v1.PodStatus{Phase: v1.PodPending}
			if _, err := r.api.CoreV1().Pods("default").Update(t.Context(), pod, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		r.start()
		r.eventually("the Pod runs on", r.phase(v1.PodRunning))
		r.stop()
	}
	if n := r.runtime.startCount(); n != 1 {
		t.Errorf("%d containers were started", n)
	}
}

// TestLastPlace lets many Pods come at once where only some of them fit.
func TestLastPlace(t *testing.T) {
	r := newRig(t)
	r.allocatable = list("cpu", "3")
	r.start()
	const all, fitting = 12, 3
	for i := range all {
		pod := testPod(asking("cpu", "1"))
		pod.Name, pod.UID, pod.Spec.NodeName = "web"+strconv.Itoa(i), types.UID("u"+strconv.Itoa(i)), "n1"
		if _, err := r.api.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	count := map[v1.PodPhase]int{}
	r.eventually("all are decided", func() bool {
		pods, err := r.api.CoreV1().Pods("default").List(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		clear(count)
		for i := range pods.Items {
			count[pods.Items[i].Status.Phase]++
		}
		return count[v1.PodRunning]+count[v1.PodFailed] == all
	})
	if diff := cmp.Diff(map[v1.PodPhase]int{v1.PodRunning: fitting, v1.PodFailed: all - fitting}, count); diff != "" {
		t.Errorf("phases -want +got:\n%s", diff)
	}
}
