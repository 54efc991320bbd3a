package kubelet

import (
	"context"
	"slices"
)

// component of the agent. Run returns soon after ctx ends, or earlier with an error.
type component interface {
	Run(ctx context.Context) error
}

// runAll starts components in order. When ctx ends or one of them fails, it stops them in reverse
// order, each after the next has returned. It returns the first failure, nil if ctx ended.
func runAll(ctx context.Context, components ...component) error {
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	stops := make([]func(), 0, len(components))
	for _, c := range components {
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := c.Run(own); err != nil {
				fail(err)
			}
		}()
		stops = append(stops, func() { cancel(); <-done })
	}
	<-running.Done()
	for _, stop := range slices.Backward(stops) {
		stop()
	}
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(running)
}
