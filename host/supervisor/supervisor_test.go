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

	"flyball.dev/host/board"
)

// journal records what parts did, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

// part is up after a while and runs until it is stopped.
func (j *journal) part(name string, takes time.Duration, after ...string) Part {
	return Part{Name: name, After: after, Run: func(ctx context.Context, report Report) error {
		j.add("start " + name)
		time.Sleep(takes)
		report(name, board.Up, nil)
		<-ctx.Done()
		j.add("stop " + name)
		return nil
	}}
}

func TestRunOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var j journal
		parts := []Part{
			j.part("network", 0),
			j.part("server", 2*time.Second),
			j.part("kubelet", time.Second, "network", "server"),
		}
		b := board.New(Rows(parts)...)
		go func() {
			if err := b.WaitUp(ctx, []string{"kubelet"}); err == nil {
				cancel()
			}
		}()
		if err := Run(ctx, b, parts); err != nil {
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

func TestRunRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		began := time.Now()
		var starts []time.Duration
		flaky := Part{Name: "proxy", Run: func(ctx context.Context, report Report) error {
			starts = append(starts, time.Since(began))
			if len(starts) < 4 {
				return errors.New("no kernel")
			}
			report("proxy", board.Up, nil)
			<-ctx.Done()
			return ctx.Err()
		}}
		b := board.New("proxy")
		if err := Run(ctx, b, []Part{flaky}); err != nil {
			t.Fatalf("Run() = %v", err)
		}
		if diff := cmp.Diff([]time.Duration{0, time.Second, 3 * time.Second, 7 * time.Second}, starts); diff != "" {
			t.Errorf("starts: -want, +got:\n%s", diff)
		}
		got, _ := b.Snapshot()
		if p := got[0]; p.Restarts != 3 || p.LastError != "no kernel" || p.State != board.Stopped {
			t.Errorf("board says %+v", p)
		}
	})
}

func TestRunFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		broken := errors.New("data is corrupt")
		server := Part{Name: "server", Rows: []string{"etcd", "kube-apiserver"}, Fatal: true, Run: func(_ context.Context, report Report) error {
			report("etcd", board.Starting, nil)
			time.Sleep(time.Second)
			return broken
		}}
		parts := []Part{j.part("network", 0), server, j.part("kubelet", 0, "kube-apiserver")}
		b := board.New(Rows(parts)...)
		err := Run(t.Context(), b, parts)
		if !errors.Is(err, broken) || err.Error() != "running server: data is corrupt" {
			t.Errorf("Run() = %v", err)
		}
		if diff := cmp.Diff([]string{"start network", "stop network"}, j.lines); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
		states := map[string]board.State{}
		rows, _ := b.Snapshot()
		for _, r := range rows {
			states[r.Name] = r.State
		}
		want := map[string]board.State{"network": board.Stopped, "etcd": board.Down, "kube-apiserver": board.Waiting, "kubelet": board.Waiting}
		if diff := cmp.Diff(want, states); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
	})
}
