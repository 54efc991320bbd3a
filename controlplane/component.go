package controlplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// started is a component that group.start has started, and what other components need of it.
type started struct {
	cancel   context.CancelFunc
	up, done chan struct{}
}

type group struct {
	ctx      context.Context // ends when the caller's ends, or when a component fails
	fail     context.CancelCauseFunc
	progress func(component, state string, err error)
	all      []*started
}

func newGroup(ctx context.Context, progress func(component, state string, err error)) *group {
	g := &group{progress: progress}
	g.ctx, g.fail = context.WithCancelCause(ctx)
	return g
}

// start runs the component called name once those that it needs are up. run serves until ctx ends,
// and calls up once, when the components that need this one may start. Its context does not end
// with the group's, so that wait can stop one component after the other.
func (g *group) start(name string, run func(ctx context.Context, up func()) error, needs ...*started) *started {
	ctx, cancel := context.WithCancel(context.WithoutCancel(g.ctx))
	s := &started{cancel: cancel, up: make(chan struct{}), done: make(chan struct{})}
	g.all = append(g.all, s)
	go func() {
		defer close(s.done)
		for _, n := range needs {
			select {
			case <-n.up:
			case <-g.ctx.Done():
				return
			}
		}
		if g.ctx.Err() != nil {
			return
		}
		g.progress(name, StateStarting, nil)
		err := run(ctx, func() { g.progress(name, StateUp, nil); close(s.up) })
		switch {
		case ctx.Err() != nil:
			err = nil // it was stopped, and an error then means nothing
		case err == nil:
			err = fmt.Errorf("running %s: it ended by itself; see the log", name)
		}
		g.fail(err)
		g.progress(name, StateDown, err)
	}()
	return s
}

// wait returns when the group's context has ended and all components have stopped. The error is
// that of the component that failed first, nil if none did.
func (g *group) wait() error {
	<-g.ctx.Done()
	for _, s := range slices.Backward(g.all) {
		s.cancel()
		<-s.done
	}
	return failure(g.ctx)
}

// failure is why ctx ended: nil if its parent did, else the error of the component that failed.
func failure(ctx context.Context) error {
	err := context.Cause(ctx)
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}
