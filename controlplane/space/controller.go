package space

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"time"
)

// pollInterval is how often the free space is read: file systems have no event for it.
const pollInterval = time.Second

// Guard refuses writes that a file system without space could not store.
type Guard struct {
	// Dir is etcd's directory, whose file system is observed.
	Dir string
	// Reserves are files, and the bytes to allocate beyond the present size of each.
	Reserves map[string]int64
	// Changed is called with an Error when writes begin to be refused, and with nil when all are
	// admitted again.
	Changed func(error)

	// refusal is nil while every write is admitted.
	refusal atomic.Pointer[refusal]
}

type refusal struct {
	level Level
	err   error
}

// Run reconciles until ctx ends. Nothing is refused before that. A refusal at the end stays:
// clients that still run repeat their requests, and etcd must not fail on them.
func (g *Guard) Run(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for state := (State{}); ; {
		before := state.Level
		state = g.reconcile(state, time.Now())
		switch {
		case before == All && state.Level != All:
			g.Changed(g.refusal.Load().err)
		case before != All && state.Level == All:
			g.Changed(nil)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (g *Guard) reconcile(state State, now time.Time) State {
	free, err := Stat(g.Dir)
	if err != nil {
		return state // the error does not mean that space is short
	}
	state = state.Next(free, now)
	if state.Level != All {
		g.refusal.Store(&refusal{level: state.Level, err: &Error{Dir: g.Dir, Free: free}})
		return state
	}
	g.refusal.Store(nil)
	g.reserve()
	return state
}

// reserve allocates space in advance, unless that would itself cause writes to be refused.
func (g *Guard) reserve() {
	for path, more := range g.Reserves {
		free, err := Stat(filepath.Dir(path))
		if err != nil || free.Bytes < scarce+2*uint64(more) { // Reserve takes twice as much
			continue
		}
		_ = Reserve(path, more) // without it, fewer writes are possible when space is short
	}
}
