package envtest

import (
	"context"

	"golang.org/x/sync/errgroup"

	"flyball.dev/controlplane/programs"
)

// Runner works behind an API server.
type Runner interface {
	// Run works until ctx ends. It calls up once, when it works.
	Run(ctx context.Context, server programs.Server, up func()) error
}

// Runners work behind an API server at the same time.
type Runners []Runner

// Run runs all of them until ctx ends or one fails, and calls up when all work.
func (r Runners) Run(ctx context.Context, server programs.Server, up func()) error {
	g, ctx := errgroup.WithContext(ctx)
	works := make(chan struct{})
	for _, runner := range r {
		g.Go(func() error {
			return runner.Run(ctx, server, func() {
				select {
				case works <- struct{}{}:
				case <-ctx.Done():
				}
			})
		})
	}
	g.Go(func() error {
		for range r {
			select {
			case <-works:
			case <-ctx.Done():
				return nil
			}
		}
		up()
		return nil
	})
	return g.Wait()
}
