// Package board keeps the state of each part of Flyball: what `flyball status` shows and what progress is drawn from.
// The supervisor is its one writer; everybody else takes snapshots and waits for changes.
package board

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// State is what a part is doing.
type State string

// The states of a part.
const (
	// Waiting parts have not been started: what they need is not up yet.
	Waiting State = "waiting"
	// Starting parts run but are not ready.
	Starting State = "starting"
	// Up parts do their work.
	Up State = "up"
	// Down parts ended with an error. They are started again after a pause, unless the part ends everything.
	Down State = "down"
	// Stopped parts ended because they were told to.
	Stopped State = "stopped"
)

// Part is the state of one part.
type Part struct {
	// Name of the part.
	Name string `json:"name"`
	// State is what the part is doing.
	State State `json:"state"`
	// Since is when State last changed.
	Since time.Time `json:"since"`
	// Took is how long the part took to come up, the last time it did.
	Took time.Duration `json:"took,omitempty"`
	// LastError is why the part was last down. It is kept when the part is up again.
	LastError string `json:"lastError,omitempty"`
	// LastErrorTime is when that was.
	LastErrorTime *time.Time `json:"lastErrorTime,omitempty"`
	// Restarts is how often the part was started again.
	Restarts int `json:"restarts,omitempty"`
}

// Board is the state of all parts. It is safe for concurrent use.
type Board struct {
	mu      sync.Mutex
	parts   []Part
	changed chan struct{}
}

// New makes a board on which the parts are waiting, in the order in which they are to be shown.
func New(names ...string) *Board {
	b := &Board{changed: make(chan struct{})}
	for _, name := range names {
		b.parts = append(b.parts, Part{Name: name, State: Waiting, Since: time.Now()})
	}
	return b
}

// Set records the state of a part; err says why it is down. A part that is not on the board is added.
func (b *Board) Set(name string, state State, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.parts, func(p Part) bool { return p.Name == name })
	if i < 0 {
		i = len(b.parts)
		b.parts = append(b.parts, Part{Name: name, State: Waiting})
	}
	b.parts[i] = next(b.parts[i], state, err, time.Now())
	close(b.changed)
	b.changed = make(chan struct{})
}

// next is the part after it went to state.
func next(p Part, state State, err error, now time.Time) Part {
	if err != nil {
		p.LastError, p.LastErrorTime = err.Error(), &now
	}
	switch {
	case state == p.State:
		return p
	case state == Up && p.State == Starting:
		p.Took = now.Sub(p.Since)
	case p.State == Down && (state == Starting || state == Up):
		p.Restarts++
	}
	p.State, p.Since = state, now
	return p
}

// Snapshot returns the parts, and a channel that is closed at the next change.
func (b *Board) Snapshot() ([]Part, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.parts), b.changed
}

// WaitUp returns once all the named parts are up.
func (b *Board) WaitUp(ctx context.Context, names []string) error {
	for {
		parts, changed := b.Snapshot()
		missing := slices.DeleteFunc(slices.Clone(names), func(name string) bool {
			return slices.ContainsFunc(parts, func(p Part) bool { return p.Name == name && p.State == Up })
		})
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %v: %w", missing, ctx.Err())
		}
	}
}
