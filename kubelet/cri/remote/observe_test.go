package remote

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// fakeService answers what the tests put into it, and counts.
type fakeService struct {
	runtimeapi.RuntimeServiceClient
	mu         sync.Mutex
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	statuses   map[string]*runtimeapi.ContainerStatus
	asked      int
	streams    chan chan *runtimeapi.ContainerEventResponse
	noStream   bool
	// slow is how long listing sandboxes takes. relists counts it, listing is how many are under
	// way, and most how many were.
	slow                   time.Duration
	relists, listing, most int
}

func (f *fakeService) ListPodSandbox(_ context.Context, in *runtimeapi.ListPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	f.mu.Lock()
	f.relists++
	f.listing++
	f.most = max(f.most, f.listing)
	f.mu.Unlock()
	if f.slow > 0 {
		time.Sleep(f.slow)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listing--
	owned := labels.SelectorFromSet(in.GetFilter().GetLabelSelector())
	list := &runtimeapi.ListPodSandboxResponse{}
	for _, s := range f.sandboxes {
		if owned.Matches(labels.Set(s.Labels)) {
			list.Items = append(list.Items, s)
		}
	}
	return list, nil
}

func (f *fakeService) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return &runtimeapi.ListContainersResponse{Containers: f.containers}, nil
}

func (f *fakeService) PodSandboxStatus(_ context.Context, in *runtimeapi.PodSandboxStatusRequest, _ ...grpc.CallOption) (*runtimeapi.PodSandboxStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
		Id: in.PodSandboxId, Network: &runtimeapi.PodSandboxNetworkStatus{
			Ip: "10.0.0.1", AdditionalIps: []*runtimeapi.PodIP{{Ip: "fd00::1"}},
		},
	}}, nil
}

func (f *fakeService) ContainerStatus(_ context.Context, in *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	st := f.statuses[in.ContainerId]
	if st == nil {
		return nil, status.Error(codes.NotFound, "gone")
	}
	return &runtimeapi.ContainerStatusResponse{Status: st}, nil
}

func (f *fakeService) GetContainerEvents(ctx context.Context, _ *runtimeapi.GetEventsRequest, _ ...grpc.CallOption) (grpc.ServerStreamingClient[runtimeapi.ContainerEventResponse], error) {
	f.mu.Lock()
	noStream := f.noStream
	f.mu.Unlock()
	s := &fakeStream{ctx: ctx, events: make(chan *runtimeapi.ContainerEventResponse), unimplemented: noStream}
	if !noStream {
		select {
		case f.streams <- s.events:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return s, nil
}

type fakeStream struct {
	grpc.ClientStream
	ctx           context.Context
	events        chan *runtimeapi.ContainerEventResponse
	unimplemented bool
}

func (s *fakeStream) Recv() (*runtimeapi.ContainerEventResponse, error) {
	if s.unimplemented {
		return nil, status.Error(codes.Unimplemented, "no events")
	}
	select {
	case e, ok := <-s.events:
		if !ok {
			return nil, io.EOF
		}
		return e, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

func podLabels(uid, name string) map[string]string {
	return map[string]string{cri.LabelPodUID: uid, cri.LabelContainerName: name}
}

func sandbox(id, uid string) *runtimeapi.PodSandbox {
	return &runtimeapi.PodSandbox{
		Id: id, Metadata: &runtimeapi.PodSandboxMetadata{Name: "web", Namespace: "default", Uid: uid}, CreatedAt: 1,
		Labels: podLabels(uid, ""),
	}
}

func (f *fakeService) add(id, name string, attempt uint32, state runtimeapi.ContainerState) {
	f.mu.Lock()
	defer f.mu.Unlock()
	meta := &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt}
	f.containers = append(f.containers, &runtimeapi.Container{Id: id, PodSandboxId: "s1", Metadata: meta, State: state, Labels: podLabels("u1", name)})
	f.statuses[id] = &runtimeapi.ContainerStatus{
		Id: id, Metadata: meta, State: state, Labels: podLabels("u1", name), CreatedAt: int64(attempt) + 1, StartedAt: int64(attempt) + 2,
	}
}

func TestObserve(t *testing.T) {
	f := &fakeService{sandboxes: []*runtimeapi.PodSandbox{sandbox("s1", "u1")}, statuses: map[string]*runtimeapi.ContainerStatus{}}
	f.add("c0", "main", 0, runtimeapi.ContainerState_CONTAINER_EXITED)
	f.add("c1", "main", 1, runtimeapi.ContainerState_CONTAINER_RUNNING)
	f.containers = append(f.containers, &runtimeapi.Container{Id: "raced", Labels: podLabels("u1", "main"), PodSandboxId: "s1"})
	c := New(f, nil)

	got, err := c.Observe(t.Context(), "u1")
	if err != nil {
		t.Fatal(err)
	}
	want := cri.Pod{
		UID: "u1",
		Sandboxes: []cri.Sandbox{{
			ID: "s1", Name: "web", Namespace: "default", Ready: true, CreatedAt: nanos(1), IPs: []string{"10.0.0.1", "fd00::1"},
		}},
		Containers: []cri.Container{
			{ID: "c1", Name: "main", SandboxID: "s1", Attempt: 1, State: cri.Running, CreatedAt: nanos(2), StartedAt: nanos(3), Labels: podLabels("u1", "main")},
			{ID: "c0", Name: "main", SandboxID: "s1", State: cri.Exited, CreatedAt: nanos(1), StartedAt: nanos(2), Labels: podLabels("u1", "main")},
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	f.containers = f.containers[:2]
	f.asked = 0
	if _, err := c.Observe(t.Context(), "u1"); err != nil || f.asked != 0 {
		t.Errorf("a second Observe reads %d times details that do not change (%v)", f.asked, err)
	}
	f.containers[1].State = runtimeapi.ContainerState_CONTAINER_EXITED
	f.statuses["c1"].State = runtimeapi.ContainerState_CONTAINER_EXITED
	if got, err := c.Observe(t.Context(), "u1"); err != nil || f.asked != 1 || got.Containers[0].State != cri.Exited {
		t.Errorf("after an exit: asked %d times, %+v, %v", f.asked, got, err)
	}
	f.containers, f.sandboxes = nil, nil
	if _, err := c.Observe(t.Context(), "u1"); err != nil {
		t.Fatal(err)
	}
	if n := len(c.observed); n != 0 {
		t.Errorf("%d details of a Pod that is gone are kept", n)
	}
}

func TestWatch(t *testing.T) {
	f := &fakeService{
		sandboxes: []*runtimeapi.PodSandbox{sandbox("s1", "u1")}, statuses: map[string]*runtimeapi.ContainerStatus{},
		streams: make(chan chan *runtimeapi.ContainerEventResponse),
	}
	seen := make(chan types.UID, 100)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); New(f, nil).Watch(ctx, func(uid types.UID) { seen <- uid }) }()
	defer func() { cancel(); <-done }()
	expect := func(what string, want types.UID) {
		t.Helper()
		for {
			select {
			case got := <-seen:
				if got == "own" {
					t.Errorf("%s: what the agent did itself was reported", what)
				}
				if got == want {
					return
				}
			case <-time.After(10 * time.Second):
				t.Fatalf("%s: Pod %s was not reported", what, want)
			}
		}
	}

	first := <-f.streams
	expect("what was there before", "u1")
	const stopped = runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT
	event := func(kind runtimeapi.ContainerEventType, uid string) {
		first <- &runtimeapi.ContainerEventResponse{
			ContainerEventType: kind,
			PodSandboxStatus:   &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{Uid: uid}},
		}
	}
	event(runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT, "own")
	event(runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, "own")
	event(stopped, "u2")
	expect("an event", "u2")
	first <- &runtimeapi.ContainerEventResponse{ContainerEventType: stopped, ContainersStatuses: []*runtimeapi.ContainerStatus{{Labels: podLabels("u3", "c")}}}
	expect("an event without a sandbox", "u3")
	f.mu.Lock()
	f.sandboxes = nil
	f.mu.Unlock()
	first <- &runtimeapi.ContainerEventResponse{ContainerEventType: stopped}
	expect("an event that does not say whose it is", "u1")

	close(first)
	f.mu.Lock()
	f.sandboxes = []*runtimeapi.PodSandbox{sandbox("s4", "u4")}
	f.mu.Unlock()
	<-f.streams
	expect("what happened between two streams", "u4")
}

func TestRelistReportsDifferences(t *testing.T) {
	f := &fakeService{sandboxes: []*runtimeapi.PodSandbox{sandbox("s1", "u1"), sandbox("s2", "u2")}}
	c := New(f, nil)
	relist := func() map[types.UID]bool {
		got := map[types.UID]bool{}
		if err := c.Relist(t.Context(), func(uid types.UID) { got[uid] = true }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, step := range []struct {
		reason string
		change func()
		want   map[types.UID]bool
	}{
		{"all is new", func() {}, map[types.UID]bool{"u1": true, "u2": true}},
		{"nothing has changed", func() {}, map[types.UID]bool{}},
		{"a state has", func() {
			gone := sandbox("s1", "u1")
			gone.State = runtimeapi.PodSandboxState_SANDBOX_NOTREADY
			f.sandboxes = []*runtimeapi.PodSandbox{gone, sandbox("s2", "u2")}
		}, map[types.UID]bool{"u1": true}},
		{"one is gone", func() { f.sandboxes = f.sandboxes[:1] }, map[types.UID]bool{"u2": true}},
	} {
		step.change()
		if d := cmp.Diff(step.want, relist()); d != "" {
			t.Errorf("%s (-want +got):\n%s", step.reason, d)
		}
	}
}

func TestTerminationMessage(t *testing.T) {
	dir := t.TempDir()
	file, log := filepath.Join(dir, "message"), filepath.Join(dir, "0.log")
	line := "2026-01-01T00:00:00.000000000Z stdout F last words\n"
	if err := errors.Join(os.WriteFile(file, []byte("from the file"), 0o600), os.WriteFile(log, []byte(line), 0o600)); err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		reason string
		policy v1.TerminationMessagePolicy
		path   string
		host   string
		code   int32
		said   string
		want   string
	}{
		"File":     {reason: "the file counts", path: "/dev/termination-log", host: file, want: "from the file"},
		"Both":     {reason: "what the runtime says comes first", path: "/dev/termination-log", host: file, said: "OOM", want: "OOM: from the file"},
		"NoFile":   {reason: "a missing file says nothing", path: "/dev/termination-log", host: file + "x"},
		"Fallback": {reason: "the log stands in after an error", policy: v1.TerminationMessageFallbackToLogsOnError, code: 1, want: "last words\n"},
		"Success":  {reason: "but not after success", policy: v1.TerminationMessageFallbackToLogsOnError},
		"FileOnly": {reason: "nor if the policy does not say so", policy: v1.TerminationMessageReadFile, code: 1},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			st := &runtimeapi.ContainerStatus{Mounts: []*runtimeapi.Mount{{ContainerPath: "/dev/termination-log", HostPath: tc.host}}}
			got := withTerminationMessage(t.Context(), st, cri.Container{
				ExitCode: tc.code, Message: tc.said, LogPath: log, StartedAt: nanos(1),
				Annotations: map[string]string{cri.AnnotationMessagePath: tc.path, cri.AnnotationMessagePolicy: string(tc.policy)},
			})
			if got != tc.want {
				t.Errorf("%s: %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

func (f *fakeService) UpdateContainerResources(_ context.Context, in *runtimeapi.UpdateContainerResourcesRequest, _ ...grpc.CallOption) (*runtimeapi.UpdateContainerResourcesResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.statuses[in.ContainerId].Resources = &runtimeapi.ContainerResources{Linux: in.Linux}
	return &runtimeapi.UpdateContainerResourcesResponse{}, nil
}

func TestResizeIsObserved(t *testing.T) {
	f := &fakeService{sandboxes: []*runtimeapi.PodSandbox{sandbox("s1", "u1")}, statuses: map[string]*runtimeapi.ContainerStatus{}}
	f.add("c1", "main", 0, runtimeapi.ContainerState_CONTAINER_RUNNING)
	c := New(f, nil)
	if p, err := c.Observe(t.Context(), "u1"); err != nil || p.Containers[0].Resources != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	resources := &runtimeapi.LinuxContainerResources{CpuShares: 512, CpuQuota: 50000, CpuPeriod: 100000, MemoryLimitInBytes: 1 << 20}
	if err := c.Resize(t.Context(), "u1", "c1", resources); err != nil {
		t.Fatal(err)
	}
	p, err := c.Observe(t.Context(), "u1")
	if err != nil {
		t.Fatal(err)
	}
	want := &cri.Resources{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 1 << 20}
	if d := cmp.Diff(want, p.Containers[0].Resources); d != "" {
		t.Errorf("Observe() after Resize() -want +got:\n%s", d)
	}
}

func TestSatisfies(t *testing.T) {
	has := cri.Resources{CPUShares: 512, CPUQuota: 50000, CPUPeriod: 100000, Memory: 100}
	cases := map[string]struct {
		reason string
		wanted cri.Resources
		want   bool
	}{
		"Same":     {"what is there is enough", has, true},
		"NoLimits": {"a limit that is not asked for stays as it is", cri.Resources{CPUShares: 512}, true},
		"Shares":   {"a request counts", cri.Resources{CPUShares: 256}, false},
		"Quota":    {"a limit counts", cri.Resources{CPUShares: 512, CPUQuota: 25000, CPUPeriod: 100000}, false},
		"Memory":   {"so does that of memory", cri.Resources{CPUShares: 512, Memory: 200}, false},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			if got := has.Satisfies(tc.wanted); got != tc.want {
				t.Errorf("%s: got %v", tc.reason, got)
			}
		})
	}
}
