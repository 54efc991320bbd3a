package pod

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// cpu lets the only container of a Pod request milliCPU.
func cpu(milliCPU int64) func(*v1.Pod) {
	return func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{v1.ResourceCPU: *resource.NewMilliQuantity(milliCPU, resource.DecimalSI)}
	}
}

// resize is what a user does with the resize subresource.
func (r *rig) resize(milliCPU int64) {
	r.t.Helper()
	pod := r.pod().DeepCopy()
	pod.Generation++
	cpu(milliCPU)(pod)
	if _, err := r.api.CoreV1().Pods("default").Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// actual says whether the container has so much, and nothing is said about a resize.
func (r *rig) actual(milliCPU int64) func() bool {
	return func() bool {
		st := r.pod().Status
		_, pending := podutil.GetPodCondition(&st, v1.PodResizePending)
		_, progress := podutil.GetPodCondition(&st, v1.PodResizeInProgress)
		return pending == nil && progress == nil && len(st.ContainerStatuses) == 1 && st.ContainerStatuses[0].Resources != nil &&
			st.ContainerStatuses[0].Resources.Requests.Cpu().MilliValue() == milliCPU && r.shares() == milliCPU*1024/1000
	}
}

func (r *rig) shares() int64 {
	r.runtime.mu.Lock()
	defer r.runtime.mu.Unlock()
	for _, c := range r.runtime.pods["u1"].Containers {
		if c.State == cri.Running && c.Resources != nil {
			return c.Resources.CPUShares
		}
	}
	return 0
}

// says returns whether a condition has a reason.
func (r *rig) says(kind v1.PodConditionType, reason string) func() bool {
	return func() bool {
		_, c := podutil.GetPodCondition(&r.pod().Status, kind)
		return c != nil && c.Reason == reason && c.ObservedGeneration == r.pod().Generation
	}
}

func (r *rig) files() []string {
	all, err := filepath.Glob(filepath.Join(r.logs, "allocations", "*"))
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func TestResizeOfARunningPod(t *testing.T) {
	r := newRig(t)
	r.allocatable = amounts(1000, 1000)
	r.start()
	r.create(cpu(250))
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	if files := r.files(); len(files) > 0 {
		t.Errorf("a Pod that was never resized has %v", files)
	}
	for i, size := range []int64{500, 125} {
		r.resize(size)
		r.event(fmt.Sprintf(`Normal ResizeCompleted Pod resize completed: `+
			`{"containers":[{"name":"main","resources":{"requests":{"cpu":"%dm"}}}],"generation":%d}`, size, i+1))
		r.eventually("it has its new size", r.actual(size))
	}
	if n := r.runtime.startCount(); n != 1 {
		t.Errorf("%d containers were started", n)
	}
	r.node.mu.Lock()
	sizes := slices.Clone(r.node.sizes)
	r.node.mu.Unlock()
	if want := []string{"grow to 500m", "grow to 125m"}; !slices.Equal(sizes, want) {
		t.Errorf("the cgroup of the Pod: %v, want %v", sizes, want)
	}
	r.delete(1)
	r.nothingLeft()
	r.eventually("its file is removed", func() bool { return len(r.files()) == 0 })
}

func TestResizeWaitsForRoom(t *testing.T) {
	r := newRig(t)
	r.allocatable = amounts(1000, 1000)
	r.start()
	r.create(cpu(250))
	other := testPod(func(p *v1.Pod) { cpu(500)(p); p.Name, p.UID, p.Spec.NodeName = "other", "u2", "n1" })
	if _, err := r.api.CoreV1().Pods("default").Create(t.Context(), other, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.eventually("the other one runs", func() bool {
		p, err := r.api.CoreV1().Pods("default").Get(t.Context(), "other", metav1.GetOptions{})
		return err == nil && p.Status.Phase == v1.PodRunning
	})
	r.resize(1500)
	r.eventually("it never fits", r.says(v1.PodResizePending, v1.PodReasonInfeasible))
	r.resize(750)
	r.eventually("it does not fit now", r.says(v1.PodResizePending, v1.PodReasonDeferred))
	if r.shares() != 256 {
		t.Errorf("the container has %d shares", r.shares())
	}
	r.stop()
	r.start()
	r.eventually("nor after a restart of the agent", r.says(v1.PodResizePending, v1.PodReasonDeferred))
	if err := r.api.CoreV1().Pods("default").Delete(t.Context(), "other", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually("then there is room", r.actual(750))
	r.delete(1)
	r.nothingLeft()
}

func TestResizeGoesOnAfterARestartOfTheAgent(t *testing.T) {
	r := newRig(t)
	r.allocatable = amounts(1000, 1000)
	r.runtime.noResize = errors.New("busy")
	r.start()
	r.create(cpu(250))
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.resize(500)
	r.eventually("the runtime refuses", r.says(v1.PodResizeInProgress, v1.PodReasonError))
	r.stop()
	r.runtime.noResize = nil
	r.resize(1500) // the agent sees only this one, and still has promised 500m
	r.start()
	r.eventually("what was promised is done", func() bool { return r.shares() == 512 })
	r.eventually("the rest never fits", r.says(v1.PodResizePending, v1.PodReasonInfeasible))
	r.stop()

	// The files are lost: what the container was made with is known to the runtime.
	if err := os.RemoveAll(filepath.Join(r.logs, "allocations")); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.resize(750)
	r.eventually("it has its new size", r.actual(750))
	if n := r.runtime.startCount(); n != 1 {
		t.Errorf("%d containers were started", n)
	}
	r.delete(1)
	r.nothingLeft()
}

func TestResizeByRestart(t *testing.T) {
	r := newRig(t)
	r.allocatable = amounts(1000, 1000)
	r.start()
	r.create(func(p *v1.Pod) {
		cpu(250)(p)
		p.Spec.Containers[0].ResizePolicy = []v1.ContainerResizePolicy{
			{ResourceName: v1.ResourceCPU, RestartPolicy: v1.RestartContainer},
		}
	})
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	for i, size := range []int64{500, 250} {
		r.resize(size)
		// While the container is stopped, nothing is said about a resize either.
		r.eventually("it has its new size, and a restart behind it", func() bool {
			return r.actual(size)() && int(r.pod().Status.ContainerStatuses[0].RestartCount) == i+1
		})
	}
	if n := r.runtime.startCount(); n != 3 {
		t.Errorf("%d containers were started, want one for each size", n)
	}
	r.delete(1)
	r.nothingLeft()
}
