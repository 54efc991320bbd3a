package programs

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Loops are all that works behind an API server.
type Loops struct {
	// Awaited run at the same time.
	Awaited []Behind
	// Late runs once all of these work. Nothing waits for it. Optional.
	Late Behind
}

// Run runs all of them until ctx ends or one fails, and calls up when those that are awaited work.
func (l Loops) Run(ctx context.Context, server Server, up func()) error {
	g, ctx := errgroup.WithContext(ctx)
	var missing atomic.Int32
	missing.Store(int32(len(l.Awaited)))
	work := make(chan struct{})
	for _, run := range l.Awaited {
		g.Go(func() error {
			return run(ctx, server, func() {
				if missing.Add(-1) == 0 {
					close(work)
				}
			})
		})
	}
	g.Go(func() error {
		select {
		case <-work:
		case <-ctx.Done():
			return nil
		}
		up()
		if l.Late == nil {
			return nil
		}
		return l.Late(ctx, server, func() {})
	})
	return g.Wait()
}
