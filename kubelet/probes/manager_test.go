package probes

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/probe"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// fakeRuntime answers commands by their first word.
type fakeRuntime struct {
	mu    sync.Mutex
	codes map[string]int32 // -1: timeout, -2: runtime error, -3: no answer
	calls []string
}

func (f *fakeRuntime) ExecSync(ctx context.Context, in *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	f.mu.Lock()
	f.calls = append(f.calls, in.ContainerId+" "+strings.Join(in.Cmd, " "))
	code := f.codes[in.Cmd[0]]
	f.mu.Unlock()
	switch code {
	case -3:
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	case -1:
		return nil, status.Error(codes.DeadlineExceeded, "timeout")
	case -2:
		return nil, status.Error(codes.Unavailable, "the runtime is away")
	default:
		return &runtimeapi.ExecSyncResponse{ExitCode: code, Stdout: []byte("out of " + in.Cmd[0])}, nil
	}
}

func (f *fakeRuntime) set(cmd string, code int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.codes[cmd] = code
}

func (f *fakeRuntime) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func run(cmd string) *v1.Probe {
	return &v1.Probe{ProbeHandler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{cmd}}}}
}

func podWith(c v1.Container) *v1.Pod {
	c.Name = "main"
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1"},
		Spec:       v1.PodSpec{Containers: []v1.Container{c}},
	}
}

type fixture struct {
	*Manager
	runtime *fakeRuntime
	changes int
	events  []string
	mu      sync.Mutex
}

// start runs a Manager in the bubble of the test. It is stopped before the bubble
// ends: synctest fails on goroutines that are left over.
func start(t *testing.T, test func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(*testing.T) {
		f := &fixture{runtime: &fakeRuntime{codes: map[string]int32{}}}
		f.Manager = New(Config{Runtime: f.runtime, Record: func(_ *v1.Pod, container, _, reason, message string) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.events = append(f.events, container+" "+reason+": "+message)
		}})
		var reader sync.WaitGroup
		ended := make(chan struct{})
		reader.Go(func() {
			for {
				select {
				case <-f.Changes():
					f.changed()
				case <-ended:
					return
				}
			}
		})
		defer func() {
			f.Stop()
			close(ended)
			reader.Wait()
		}()
		test(f)
	})
}

func (f *fixture) changed() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.changes++
}

func target(id string) []Target {
	return []Target{{Container: "main", ContainerID: id, StartedAt: time.Now()}}
}

func want(t *testing.T, f *fixture, startup, liveness, readiness probe.Result) cri.Probed {
	t.Helper()
	synctest.Wait()
	got := f.Results("u1")["main"]
	verdicts := []probe.Result{probe.Success, probe.Success, probe.Success}
	f.Manager.mu.Lock()
	for i, kind := range []Kind{Startup, Liveness, Readiness} {
		if l := f.pods["u1"].loops[loopKey{"main", kind}]; l != nil {
			verdicts[i] = l.state.verdict
		}
	}
	f.Manager.mu.Unlock()
	if d := cmp.Diff([]probe.Result{startup, liveness, readiness}, verdicts); d != "" {
		t.Fatalf("startup, liveness, readiness (-want +got):\n%s", d)
	}
	return got
}

// TestHungRuntime: a runtime that does not answer, because it hangs or because a process keeps the
// output of the command open, does not keep the probe for ever.
func TestHungRuntime(t *testing.T) {
	start(t, func(f *fixture) {
		f.runtime.set("live", -3)
		check := run("live")
		check.FailureThreshold = 3
		f.Set(podWith(v1.Container{LivenessProbe: check}), target("a"))
		time.Sleep(time.Hour)
		want(t, f, probe.Success, probe.Failure, probe.Success)
		f.mu.Lock()
		defer f.mu.Unlock()
		const event = `main Unhealthy: Liveness probe failed: command timed out: "live" timed out after 1s`
		if len(f.events) == 0 || f.events[len(f.events)-1] != event {
			t.Errorf("the events are %q", f.events)
		}
	})
}

func TestNoProbesMeansSuccess(t *testing.T) {
	start(t, func(f *fixture) {
		f.Set(podWith(v1.Container{}), target("a"))
		if r := want(t, f, probe.Success, probe.Success, probe.Success); !r.Started || !r.Ready {
			t.Error("a container without probes is ready when it runs")
		}
		if f.Results("other") != nil {
			t.Error("an unknown pod has results")
		}
	})
}

func TestStartupThenReadiness(t *testing.T) {
	start(t, func(f *fixture) {
		f.runtime.set("up", 1)
		pod := podWith(v1.Container{StartupProbe: run("up"), ReadinessProbe: run("ready"), LivenessProbe: run("live")})
		f.Set(pod, target("a"))
		want(t, f, probe.Unknown, probe.Success, probe.Failure)
		time.Sleep(9 * time.Second)
		f.runtime.set("up", 0)
		want(t, f, probe.Unknown, probe.Success, probe.Failure)
		time.Sleep(time.Second)
		// No period passes between the startup probe and the first readiness probe.
		if r := want(t, f, probe.Success, probe.Success, probe.Success); !r.Started || !r.Ready {
			t.Error("the container is ready")
		}
		if f.changes != 2 {
			t.Errorf("%d changes were announced, want 2: started, ready", f.changes)
		}
	})
}

func TestLivenessFailureAndNewContainer(t *testing.T) {
	start(t, func(f *fixture) {
		check := run("live")
		check.TerminationGracePeriodSeconds = ptr.To[int64](7)
		pod := podWith(v1.Container{LivenessProbe: check})
		f.runtime.set("live", 1)
		f.Set(pod, target("a"))
		time.Sleep(20 * time.Second)
		r := want(t, f, probe.Success, probe.Failure, probe.Success)
		if r.Failed != "liveness" || *r.TerminationGracePeriodSeconds != 7 {
			t.Errorf("the result is %+v", r)
		}
		count := f.runtime.count()
		time.Sleep(time.Minute)
		if f.runtime.count() != count {
			t.Error("a container that is being restarted is probed no more")
		}
		f.runtime.set("live", 0)
		f.Set(pod, target("b"))
		if r := want(t, f, probe.Success, probe.Success, probe.Success); r.ContainerID != "b" {
			t.Errorf("results are of container %q, want b", r.ContainerID)
		}
		const event = "main Unhealthy: Liveness probe failed: out of live"
		if d := cmp.Diff([]string{event, event, event}, f.events); d != "" {
			t.Errorf("events (-want +got):\n%s", d)
		}
	})
}

func TestSetIsIdempotent(t *testing.T) {
	start(t, func(f *fixture) {
		pod := podWith(v1.Container{ReadinessProbe: run("ready")})
		for range 5 {
			f.Set(pod, target("a"))
			synctest.Wait()
		}
		if n := f.runtime.count(); n != 1 {
			t.Errorf("the container was probed %d times, want 1", n)
		}
	})
}

func TestDeletionKeepsReadinessOnly(t *testing.T) {
	start(t, func(f *fixture) {
		f.runtime.set("live", 1)
		pod := podWith(v1.Container{LivenessProbe: run("live"), ReadinessProbe: run("ready")})
		containers := target("a")
		f.Set(pod, containers)
		want(t, f, probe.Success, probe.Success, probe.Success)
		ending := pod.DeepCopy()
		ending.DeletionTimestamp = new(metav1.Now())
		f.Set(ending, containers)
		f.runtime.set("ready", 1)
		time.Sleep(time.Minute)
		want(t, f, probe.Success, probe.Success, probe.Failure)
	})
}

func TestRestartOfTheAgent(t *testing.T) {
	start(t, func(f *fixture) {
		f.runtime.set("ready", 1)
		pod := podWith(v1.Container{StartupProbe: run("up"), ReadinessProbe: run("ready")})
		pod.Status.ContainerStatuses = []v1.ContainerStatus{{
			Name: "main", ContainerID: "containerd://a", Started: new(true), Ready: true,
		}}
		old := []Target{{Container: "main", ContainerID: "a", StartedAt: time.Now().Add(-time.Hour)}}
		f.Set(pod, old)
		want(t, f, probe.Success, probe.Success, probe.Success) // it was ready, and is until proven otherwise
		time.Sleep(31 * time.Second)                            // jitter of up to a period, then failureThreshold periods
		want(t, f, probe.Success, probe.Success, probe.Failure)
		for _, c := range f.runtime.calls {
			if strings.HasPrefix(c, "a up") {
				t.Error("the startup probe of a container that has started ran again")
			}
		}
	})
}

func TestRemove(t *testing.T) {
	start(t, func(f *fixture) {
		f.Set(podWith(v1.Container{ReadinessProbe: run("ready")}), target("a"))
		synctest.Wait()
		f.Remove("u1")
		f.Remove("u1")
		count := f.runtime.count()
		time.Sleep(time.Minute)
		if f.runtime.count() != count || f.Results("u1") != nil {
			t.Error("a removed pod is still probed")
		}
	})
}

func TestRuntimeErrors(t *testing.T) {
	start(t, func(f *fixture) {
		f.runtime.set("live", -2)
		f.Set(podWith(v1.Container{LivenessProbe: run("live")}), target("a"))
		time.Sleep(time.Minute)
		want(t, f, probe.Success, probe.Success, probe.Success)
		if f.runtime.count() < attempts || len(f.events) == 0 ||
			!strings.HasPrefix(f.events[0], "main Unhealthy: Liveness probe errored and resulted in unknown state: ") {
			t.Errorf("got %d calls and events %v", f.runtime.count(), f.events)
		}
		f.runtime.set("live", -1)
		time.Sleep(time.Minute)
		want(t, f, probe.Success, probe.Failure, probe.Success)
	})
}

func TestEarlyFailuresAreQuiet(t *testing.T) {
	start(t, func(f *fixture) {
		f.runtime.set("ready", 1)
		f.Set(podWith(v1.Container{ReadinessProbe: run("ready")}), target("a"))
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(f.events) != 0 {
			t.Errorf("a server that is only starting is no event: %v", f.events)
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if len(f.events) == 0 {
			t.Error("one that does not come up is")
		}
	})
}
