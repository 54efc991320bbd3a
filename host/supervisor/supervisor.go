// Package supervisor gives the components of Flyball one life cycle: each starts as soon as what it
// needs is up, one that fails is started again or ends everything, and all stop in the reverse of
// their order. Package wiring of the command says which components there are.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"flyball.dev/host/status"
)

// Pauses before a component that failed is started again.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
	// A component that ran this long was healthy; the next failure begins at firstPause again.
	healthyAfter = time.Minute
)

// Component is something that runs.
type Component interface {
	// Run works until ctx ends. It sets e to Up when it is ready, and reports on e what goes wrong
	// meanwhile. The supervisor sets the other states.
	Run(ctx context.Context, e *status.Entry) error
}

// Group is several components that start and end together, and report on entries of their own.
type Group interface {
	// Run works until ctx ends.
	Run(ctx context.Context) error
}

// Supervisor runs components. The zero Supervisor has none.
type Supervisor struct {
	// Status has an entry for each component.
	Status status.Table

	units []unit
}

// unit is a Component with its one entry, or a Group with all of its entries.
type unit struct {
	name      string
	component Component
	group     Group
	entries   []*status.Entry
	needs     []*status.Entry
}

// Add adds a component, which starts whenever all that it needs is up, and is started again when it
// fails. It returns the entry of the component, for others that need it. A need that is nil is met.
func (s *Supervisor) Add(name string, c Component, needs ...*status.Entry) *status.Entry {
	e := s.Status.Add(name)
	needs = slices.DeleteFunc(needs, func(e *status.Entry) bool { return e == nil })
	s.units = append(s.units, unit{name: name, component: c, entries: []*status.Entry{e}, needs: needs})
	return e
}

// AddGroup adds a group that starts at once. When it ends, everything does.
func (s *Supervisor) AddGroup(name string, g Group, entries ...*status.Entry) {
	s.units = append(s.units, unit{name: name, group: g, entries: entries})
}

// Run runs the components until ctx ends or a group does, stops them from the last to the first,
// and returns the group's error.
func (s *Supervisor) Run(ctx context.Context) error {
	stopped := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	// Components do not end with ctx but one after the other, the last first.
	type running struct {
		stop context.CancelFunc
		done chan struct{}
	}
	started := make([]running, 0, len(s.units))
	var wg sync.WaitGroup
	for _, u := range s.units {
		unitCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{stop: stop, done: make(chan struct{})}
		started = append(started, r)
		wg.Go(func() {
			defer close(r.done)
			if err := s.keep(unitCtx, u); err != nil {
				fail(err)
			}
		})
	}

	<-ctx.Done()
	for _, r := range slices.Backward(started) {
		r.stop()
		<-r.done
	}
	wg.Wait()
	if stopped.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// keep runs the unit until ctx ends, again and again. It returns an error only for a group.
func (s *Supervisor) keep(ctx context.Context, u unit) error {
	pause := firstPause
	for {
		if err := s.Status.WaitUp(ctx, u.needs); err != nil {
			return nil //nolint:nilerr // stopped before it started
		}
		began := time.Now()
		err := u.run(ctx)
		if ctx.Err() != nil {
			u.set(status.Stopped, nil)
			return nil //nolint:nilerr // a component that was stopped may return any error
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		u.set(status.Down, err)
		if u.group != nil {
			return fmt.Errorf("running %s: %w", u.name, err)
		}
		if time.Since(began) >= healthyAfter {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxPause)
	}
}

func (u unit) run(ctx context.Context) error {
	if u.group != nil {
		return u.group.Run(ctx)
	}
	u.entries[0].Set(status.Starting, nil)
	return u.component.Run(ctx, u.entries[0])
}

// set sets the unit's entries, except that those of a group which were never started or are already
// down keep their state.
func (u unit) set(state status.State, err error) {
	for _, e := range u.entries {
		if current := e.State(); u.group == nil || current != status.Waiting && current != status.Down {
			e.Set(state, err)
		}
	}
}
