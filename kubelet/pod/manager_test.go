package pod

import (
	"context"
	"encoding/json"
	"maps"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/samber/lo"
	"go.uber.org/goleak"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/pod/plan"
)

// rig is an agent on a fake runtime and a fake API server.
type rig struct {
	t   *testing.T
	api *fake.Clientset
	// watching has an item for each watch of Pods that began: unlike a real API, the fake one
	// forgets what happens between the list and the watch.
	watching chan struct{}
	versions int
	runtime  *fakeRuntime
	node     *fakeNode
	events   *record.FakeRecorder
	logs     string
	left     []types.UID
	reports  chan string
	// allocatable and labels of the node.
	allocatable v1.ResourceList
	labels      map[string]string
	stop        func()
	// pods is the source of the Pods; a watch if nil.
	pods Source
	// manager is the agent that runs.
	manager *Manager
}

func newRig(t *testing.T) *rig {
	t.Helper()
	before := goleak.IgnoreCurrent()
	r := &rig{
		t: t, api: fake.NewClientset(), runtime: newFakeRuntime(), node: newFakeNode(),
		watching: make(chan struct{}, 10), events: record.NewFakeRecorder(1000), logs: t.TempDir(), reports: make(chan string, 100),
	}
	r.api.PrependReactor("*", "pods", r.version)
	r.api.PrependWatchReactor("pods", func(action clienttesting.Action) (bool, watch.Interface, error) {
		w, err := r.api.Tracker().Watch(action.GetResource(), action.GetNamespace())
		r.watching <- struct{}{}
		return true, w, err
	})
	t.Cleanup(func() {
		if r.stop != nil {
			r.stop()
		}
		noLeaks(t, before)
	})
	return r
}

// noLeaks wants all goroutines gone within ten seconds: goleak's own timeout, 0.4 s, is short for a
// busy machine.
func noLeaks(t *testing.T, except goleak.Option) {
	t.Helper()
	err := goleak.Find(except)
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); {
		err = goleak.Find(except)
	}
	if err != nil {
		t.Error(err)
	}
}

// version gives each write a resourceVersion of its own, which the fake API does not: by it a
// worker knows what is newer.
func (r *rig) version(action clienttesting.Action) (bool, runtime.Object, error) {
	r.versions++ // the fake API asks one after the other
	version := strconv.Itoa(r.versions)
	switch a := action.(type) {
	case clienttesting.CreateActionImpl:
		a.Object.(*v1.Pod).ResourceVersion = version
	case clienttesting.UpdateActionImpl:
		a.Object.(*v1.Pod).ResourceVersion = version
	case clienttesting.PatchActionImpl:
		patch := map[string]any{}
		if err := json.Unmarshal(a.Patch, &patch); err != nil {
			return true, nil, err
		}
		meta, _ := patch["metadata"].(map[string]any)
		patch["metadata"] = lo.Assign(meta, map[string]any{"resourceVersion": version})
		raw, err := json.Marshal(patch)
		if err != nil {
			return true, nil, err
		}
		a.Patch = raw
		return clienttesting.ObjectReaction(r.api.Tracker())(a)
	}
	return false, nil, nil
}

// start starts an agent that remembers nothing.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	m := New(Config{
		NodeName: "n1", Node: plan.Node{IPs: []string{"192.0.2.1"}, RuntimeName: "containerd"},
		NodeObject: r.machine, Pods: r.pods,
		Report:       func(err error) { r.reports <- err.Error() },
		NetworkError: func(context.Context) error { return r.runtime.networkError },
		Render:       containers.Node{PodLogsDir: filepath.Join(r.logs, "pods")}, Client: r.api,
		Runtime: r.runtime, CRI: r.runtime,
		AllocationDir: filepath.Join(r.logs, "allocations"),
		Volumes:       r.node, Images: r.node, Cgroups: r.node, Probes: r.node,
		Env: containers.EnvSources{Services: noServices}, Recorder: r.events,
		Leftovers: func() ([]types.UID, error) { return r.left, nil },
	})
	r.manager = m
	done := make(chan error, 1)
	go func() { defer close(done); done <- m.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
		r.stop = nil
	}
	select {
	case <-r.watching:
	case err := <-done:
		r.t.Fatalf("the agent ended: %v", err)
	}
}

// machine is the Node as it is watched. The API server has none: no test must need it.
func (r *rig) machine() *v1.Node {
	allocatable := v1.ResourceList{v1.ResourcePods: resource.MustParse("110")}
	maps.Copy(allocatable, r.allocatable)
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: r.labels}, Status: v1.NodeStatus{Allocatable: allocatable}}
}

func (r *rig) create(change func(*v1.Pod)) *v1.Pod {
	r.t.Helper()
	pod := testPod(change)
	pod.Spec.NodeName = "n1"
	pod, err := r.api.CoreV1().Pods(pod.Namespace).Create(context.Background(), pod, metav1.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	return pod
}

func (r *rig) pod() *v1.Pod {
	pod, err := r.api.CoreV1().Pods("default").Get(context.Background(), "web", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return pod
}

func (r *rig) eventually(what string, holds func() bool) {
	r.t.Helper()
	err := wait.PollUntilContextTimeout(context.Background(), 2*time.Millisecond, 10*time.Second, true,
		func(context.Context) (bool, error) { return holds(), nil })
	if err != nil {
		r.t.Fatalf("%s: it did not come to that; the Pod is %+v", what, r.pod())
	}
}

func (r *rig) phase(want v1.PodPhase) func() bool {
	return func() bool { p := r.pod(); return p != nil && p.Status.Phase == want }
}

func (r *rig) delete(grace int64) {
	r.t.Helper()
	pod := r.pod().DeepCopy()
	pod.DeletionTimestamp = &metav1.Time{Time: time.Now().Add(time.Duration(grace) * time.Second)}
	pod.DeletionGracePeriodSeconds = &grace
	if _, err := r.api.CoreV1().Pods("default").Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

// event waits for an Event.
func (r *rig) event(want string) {
	r.t.Helper()
	var seen []string
	for {
		select {
		case e := <-r.events.Events:
			if e == want {
				return
			}
			seen = append(seen, e)
		case <-time.After(10 * time.Second):
			r.t.Fatalf("no Event %q, but %q", want, seen)
		}
	}
}

func (r *rig) nothingLeft() {
	r.t.Helper()
	r.eventually("nothing is left", func() bool { return r.pod() == nil && r.runtime.empty() && r.node.clean() })
}

func TestPodLife(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(func(p *v1.Pod) {
		p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Exec: &v1.ExecAction{Command: []string{"bye"}}}}
	})
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	if ip := r.pod().Status.PodIP; ip != "10.0.0.9" {
		t.Errorf("podIP is %q", ip)
	}

	r.runtime.exit("u1", 1)
	r.eventually("the container is restarted", func() bool {
		st := r.pod().Status
		return len(st.ContainerStatuses) == 1 && st.ContainerStatuses[0].RestartCount == 1 && st.ContainerStatuses[0].State.Running != nil
	})
	r.runtime.exit("u1", 1)
	r.eventually("then it backs off", func() bool {
		w := r.pod().Status.ContainerStatuses[0].State.Waiting
		return w != nil && w.Reason == "CrashLoopBackOff"
	})

	r.delete(30)
	r.nothingLeft()
}

func TestRestartOfTheAgentRestartsNothing(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(nil)
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	for range 3 {
		r.stop()
		r.start()
	}
	r.delete(1)
	r.nothingLeft()
	if n := r.runtime.startCount(); n != 1 {
		t.Errorf("%d containers were started", n)
	}
}

// TestCutOffStart: an agent that ended while a container started leaves what containerd calls a
// failed start.
func TestCutOffStart(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(func(p *v1.Pod) { p.Spec.RestartPolicy = v1.RestartPolicyNever })
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.stop()
	var cutOff string
	r.runtime.change("u1", func(p *cri.Pod) {
		c := &p.Containers[0]
		cutOff = c.ID
		c.State, c.ExitCode, c.Reason, c.FinishedAt = cri.Exited, 128, "StartError", time.Now()
		c.Message = `failed to start containerd task "x": context canceled`
	})
	r.start()
	r.eventually("the container is started again", func() bool {
		cs := r.pod().Status.ContainerStatuses[0]
		return cs.State.Running != nil && cs.ContainerID != "containerd://"+cutOff
	})
	if phase := r.pod().Status.Phase; phase != v1.PodRunning {
		t.Errorf("the Pod is %s", phase)
	}
	r.delete(1)
	r.nothingLeft()
}

func TestHungRuntime(t *testing.T) {
	r := newRig(t)
	r.runtime.hung = true
	r.start()
	r.create(nil)
	r.eventually("the Pod runs once the runtime answers again", r.phase(v1.PodRunning))
	want := "observing Pod u1: the container runtime hangs, and nothing can be done for the Pod meanwhile: " +
		"listing: rpc error: code = DeadlineExceeded desc = too late"
	if got := <-r.reports; got != want {
		t.Errorf("reported %q", got)
	}
	r.delete(1)
	r.nothingLeft()
}

func TestDeletionDoesNotWaitForAPull(t *testing.T) {
	r := newRig(t)
	r.node.pull = make(chan struct{}) // never ends
	r.start()
	r.create(nil)
	r.eventually("the sandbox is there", func() bool { return !r.runtime.empty() })
	r.delete(30)
	r.nothingLeft()
}

func TestShorterGrace(t *testing.T) {
	r := newRig(t)
	r.runtime.obstinate = true
	r.start()
	r.create(nil)
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.delete(3600)
	r.eventually("the end is announced", func() bool {
		select {
		case e := <-r.events.Events:
			return e == "Normal Killing Stopping container main"
		default:
			return false
		}
	})
	r.delete(0)
	r.nothingLeft()
}

func TestOrphans(t *testing.T) {
	r := newRig(t)
	r.runtime.pods["o1"] = &cri.Pod{
		Sandboxes:  []cri.Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.1"}}},
		Containers: []cri.Container{{ID: "c", Name: "main", SandboxID: "s", State: cri.Running}},
	}
	r.runtime.owner["s"], r.runtime.owner["c"] = "o1", "o1"
	r.left = []types.UID{"o2"} // a directory and a cgroup
	r.node.mounted["o2"], r.node.cgroups["o2"] = true, true
	r.start()
	r.nothingLeft()
}

func TestPodThatSucceeds(t *testing.T) {
	r := newRig(t)
	r.start()
	r.create(func(p *v1.Pod) {
		p.Spec.RestartPolicy = v1.RestartPolicyNever
		p.Spec.InitContainers = []v1.Container{{Name: "side", RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways)}}
	})
	r.eventually("the Pod runs", r.phase(v1.PodRunning))
	r.runtime.change("u1", func(p *cri.Pod) {
		for i := range p.Containers {
			if p.Containers[i].Name == "main" {
				p.Containers[i].State, p.Containers[i].FinishedAt = cri.Exited, time.Now()
			}
		}
	})
	r.eventually("the Pod has succeeded", r.phase(v1.PodSucceeded))
	r.eventually("it has cleaned up", r.node.clean)
	if r.runtime.empty() {
		t.Error("the containers are removed before the Pod is deleted: their logs are gone")
	}
	r.delete(0)
	r.nothingLeft()
}
