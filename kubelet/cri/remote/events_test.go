package remote

import (
	"context"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// eventless is a runtime without events, as a server: CRI-O ends the stream at once, runtimes
// that are older than the call do not know it.
type eventless struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	knowsCall bool

	mu        sync.Mutex
	sandboxes []*runtimeapi.PodSandbox
}

func (r *eventless) GetContainerEvents(in *runtimeapi.GetEventsRequest, s grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	if r.knowsCall {
		return nil
	}
	return r.UnimplementedRuntimeServiceServer.GetContainerEvents(in, s)
}

func (r *eventless) ListPodSandbox(context.Context, *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &runtimeapi.ListPodSandboxResponse{Items: r.sandboxes}, nil
}

func (r *eventless) ListContainers(context.Context, *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{}, nil
}

func TestWatchWithoutEvents(t *testing.T) {
	for name, tc := range map[string]struct {
		reason    string
		knowsCall bool
	}{
		"EOF":           {"CRI-O without enable_pod_events answers with nothing", true},
		"Unimplemented": {"an old runtime does not know the call", false},
	} {
		t.Run(name, func(t *testing.T) {
			rt := &eventless{knowsCall: tc.knowsCall}
			socket := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			srv := grpc.NewServer()
			runtimeapi.RegisterRuntimeServiceServer(srv, rt)
			go func() { _ = srv.Serve(l) }()
			defer srv.Stop()
			c, err := Dial("unix://" + socket)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()

			ctx, cancel := context.WithCancel(t.Context())
			changed, done := make(chan types.UID, 10), make(chan struct{})
			go func() { defer close(done); c.Watch(ctx, func(uid types.UID) { changed <- uid }) }()
			defer func() { cancel(); <-done }()
			// The second comes after what the stream's own beginning and end list.
			for _, uid := range []string{"first", "second"} {
				rt.mu.Lock()
				rt.sandboxes = append(rt.sandboxes, sandbox("s-"+uid, uid))
				rt.mu.Unlock()
				select {
				case got := <-changed:
					if string(got) != uid {
						t.Errorf("%s: Pod %s was reported, want %s", tc.reason, got, uid)
					}
				case <-time.After(10 * time.Second):
					t.Fatalf("%s: Pod %s was not reported", tc.reason, uid)
				}
			}
		})
	}
}

// TestRelistInterval: with an event stream a relist is a safety net, without one all that there is.
func TestRelistInterval(t *testing.T) {
	for name, tc := range map[string]struct {
		reason   string
		noStream bool
		min, max int
	}{
		"Events":   {"one every 30 s", false, 4, 8},
		"NoEvents": {"one a second, and one or two for each time that events are asked for", true, 115, 140},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeService{noStream: tc.noStream, streams: make(chan chan *runtimeapi.ContainerEventResponse, 1)}
				ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
				defer cancel()
				New(f, nil).Watch(ctx, func(types.UID) {})
				if f.relists < tc.min || f.relists > tc.max {
					t.Errorf("%s: %d relists in two minutes, want %d to %d", tc.reason, f.relists, tc.min, tc.max)
				}
			})
		})
	}
}

// TestEventsComeLater: a runtime that is configured to have events later is followed then.
func TestEventsComeLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeService{noStream: true, streams: make(chan chan *runtimeapi.ContainerEventResponse)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); New(f, nil).Watch(ctx, func(types.UID) {}) }()
		defer func() { cancel(); <-done }()
		time.Sleep(10 * time.Minute) // of the bubble
		f.mu.Lock()
		f.noStream = false
		f.mu.Unlock()
		select {
		case <-f.streams:
		case <-time.After(noEventsMax + time.Second):
			t.Error("events were not asked for again")
		}
	})
}

// TestRelistsDoNotPileUp: however much a slow runtime reports, one relist is under way.
func TestRelistsDoNotPileUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeService{slow: time.Second, streams: make(chan chan *runtimeapi.ContainerEventResponse)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); New(f, nil).Watch(ctx, func(types.UID) {}) }()
		events := <-f.streams
		for range 50 {
			events <- &runtimeapi.ContainerEventResponse{ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT}
		}
		time.Sleep(10 * time.Second)
		if f.most != 1 || f.relists > 3 {
			t.Errorf("%d relists, %d at once, for 50 events without a Pod; want at most 3, one by one", f.relists, f.most)
		}
		// One that is under way is waited for.
		events <- &runtimeapi.ContainerEventResponse{ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT}
		synctest.Wait()
		cancel()
		<-done
		if f.listing != 0 {
			t.Error("Watch returned while a relist was under way")
		}
	})
}

// TestOwned: what others have in the same runtime is not reported. What a Pod of ours has from
// before there were labels is.
func TestOwned(t *testing.T) {
	const mark = "flyball.dev/owner"
	ours, theirs := map[string]string{mark: "us"}, map[string]string{mark: "them"}
	old := map[string]string{cri.LabelPodUID: "old"}
	listed := func(id string, labels map[string]string) *runtimeapi.PodSandbox {
		s := sandbox("s-"+id, id)
		s.Labels = labels
		return s
	}
	f := &fakeService{
		sandboxes: []*runtimeapi.PodSandbox{listed("ours", ours), listed("theirs", theirs), listed("unlabelled", nil), listed("old", old)},
		streams:   make(chan chan *runtimeapi.ContainerEventResponse),
	}
	c := New(f, nil)
	c.Owned = ours
	if _, err := c.Observe(t.Context(), "old"); err != nil { // as its worker does
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen, done := make(chan types.UID, 10), make(chan struct{})
	go func() { defer close(done); c.Watch(ctx, func(uid types.UID) { seen <- uid }) }()
	defer func() { cancel(); <-done }()
	events := <-f.streams
	next := func() types.UID {
		select {
		case uid := <-seen:
			return uid
		case <-time.After(10 * time.Second):
			t.Fatal("no other Pod was reported")
			return ""
		}
	}
	if got, want := sets.New(next(), next()), sets.New[types.UID]("ours", "old"); !got.Equal(want) {
		t.Errorf("the relist reported the Pods %v, want %v", got, want)
	}
	for _, e := range []struct {
		uid    string
		labels map[string]string
	}{{"theirs", theirs}, {"unlabelled", nil}, {"ours", ours}, {"old", old}} {
		events <- &runtimeapi.ContainerEventResponse{
			ContainerEventType: runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT,
			PodSandboxStatus:   &runtimeapi.PodSandboxStatus{Metadata: &runtimeapi.PodSandboxMetadata{Uid: e.uid}, Labels: e.labels},
		}
	}
	for _, want := range []types.UID{"ours", "old"} {
		if got := next(); got != want {
			t.Errorf("an event of Pod %s was reported, want %s", got, want)
		}
	}
}
