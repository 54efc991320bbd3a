package supervisor

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/host/status"
)

// journal records what components did, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// worker is up after a while and runs until it is stopped.
type worker struct {
	journal *journal
	name    string
	takes   time.Duration
}

func (w worker) Run(ctx context.Context, e *status.Entry) error {
	w.journal.add("start " + w.name)
	time.Sleep(w.takes)
	e.Up()
	<-ctx.Done()
	w.journal.add("stop " + w.name)
	return nil
}

func TestRunOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var j journal
		var s Supervisor
		network := s.Add("network", worker{&j, "network", 0})
		server := s.Add("server", worker{&j, "server", 2 * time.Second}, nil)
		kubelet := s.Add("kubelet", worker{&j, "kubelet", time.Second}, network, server)
		go func() {
			if err := s.Status.WaitUp(ctx, []*status.Entry{kubelet}); err == nil {
				cancel()
			}
		}()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		// The first two start together, in any order.
		slices.Sort(j.lines[:2])
		want := []string{"start network", "start server", "start kubelet", "stop kubelet", "stop server", "stop network"}
		if diff := cmp.Diff(want, j.lines); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
	})
}

// flaky fails three times.
type flaky struct {
	began  time.Time
	starts []time.Duration
}

func (f *flaky) Run(ctx context.Context, e *status.Entry) error {
	f.starts = append(f.starts, time.Since(f.began))
	if len(f.starts) < 4 {
		return errors.New("no kernel")
	}
	e.Up()
	<-ctx.Done()
	return ctx.Err()
}

func TestRunRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		proxy := &flaky{began: time.Now()}
		var s Supervisor
		s.Add("proxy", proxy)
		if err := s.Run(ctx); err != nil {
			t.Fatalf("Run() = %v", err)
		}
		if diff := cmp.Diff([]time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}, proxy.starts); diff != "" {
			t.Errorf("starts: -want, +got:\n%s", diff)
		}
		got, _, _ := s.Status.Snapshot()
		if c := got[0]; c.Restarts != 3 || c.LastError != "no kernel" || c.State != status.Stopped {
			t.Errorf("the status is %+v", c)
		}
	})
}

// broken ends with an error.
type broken struct {
	etcd *status.Entry
	err  error
}

func (b broken) Run(context.Context) error {
	b.etcd.Set(status.Starting, nil)
	time.Sleep(time.Second)
	return b.err
}

func TestRunGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		corrupt := errors.New("data is corrupt")
		var s Supervisor
		s.Add("network", worker{&j, "network", 0})
		etcd, apiServer := s.Status.Add("etcd"), s.Status.Add("kube-apiserver")
		s.AddGroup("server", broken{etcd, corrupt}, etcd, apiServer)
		s.Add("kubelet", worker{&j, "kubelet", 0}, apiServer)
		err := s.Run(t.Context())
		if !errors.Is(err, corrupt) || err.Error() != "running server: data is corrupt" {
			t.Errorf("Run() = %v", err)
		}
		if diff := cmp.Diff([]string{"start network", "stop network"}, j.lines); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
		states := map[string]status.State{}
		components, _, _ := s.Status.Snapshot()
		for _, c := range components {
			states[c.Name] = c.State
		}
		want := map[string]status.State{"network": status.Stopped, "etcd": status.Down, "kube-apiserver": status.Waiting, "kubelet": status.Waiting}
		if diff := cmp.Diff(want, states); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
	})
}
