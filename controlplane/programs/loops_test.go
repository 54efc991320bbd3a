package programs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// worker works after a while, or fails.
type worker struct {
	takes time.Duration
	err   error
}

func (w worker) run(ctx context.Context, _ Server, up func()) error {
	time.Sleep(w.takes)
	if w.err != nil {
		return w.err
	}
	up()
	<-ctx.Done()
	return nil
}

func TestLoops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		err := Loops{Awaited: []Behind{worker{takes: time.Second}.run, worker{takes: 3 * time.Second}.run}, Late: worker{}.run}.Run(ctx, Server{}, func() {
			if took := time.Since(began); took != 3*time.Second {
				t.Errorf("all work after %s, want 3s", took)
			}
			cancel()
		})
		if err != nil || ctx.Err() == nil {
			t.Errorf("Run() = %v, and up was called: %t", err, ctx.Err() != nil)
		}
	})
}

func TestLoopsFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("no kinds")
		err := Loops{Awaited: []Behind{worker{}.run, worker{takes: time.Second, err: broken}.run}}.Run(t.Context(), Server{}, func() { t.Error("up was called") })
		if !errors.Is(err, broken) {
			t.Errorf("Run() = %v, want %v", err, broken)
		}
	})
}
