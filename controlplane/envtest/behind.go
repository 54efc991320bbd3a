package envtest

import (
	"context"

	"golang.org/x/sync/errgroup"

	"flyball.dev/controlplane/programs"
)

// Behind is all that works behind an API server.
type Behind struct {
	// Awaited run at the same time.
	Awaited []programs.Behind
	// Late runs once all of these work. Nothing waits for it. Optional.
	Late programs.Behind
}

// Run runs all of them until ctx ends or one fails, and calls up when those that are awaited work.
func (b Behind) Run(ctx context.Context, server programs.Server, up func()) error {
	g, ctx := errgroup.WithContext(ctx)
	works := make(chan struct{})
	for _, run := range b.Awaited {
		g.Go(func() error {
			return run(ctx, server, func() {
				select {
				case works <- struct{}{}:
				case <-ctx.Done():
				}
			})
		})
	}
	g.Go(func() error {
		for range b.Awaited {
			select {
			case <-works:
			case <-ctx.Done():
				return nil
			}
		}
		up()
		if b.Late == nil {
			return nil
		}
		return b.Late(ctx, server, func() {})
	})
	return g.Wait()
}
