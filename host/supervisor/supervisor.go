// Package supervisor gives the parts of Flyball one life cycle: each starts as soon as what it needs is up, one that
// fails is started again or ends everything, and all stop in the reverse of their order. What a part is stays with
// package parts; what its state was is left on the board, of which this package is the one writer.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"flyball.dev/host/board"
)

// Pauses before a part that failed is started again.
const (
	firstPause = time.Second
	maxPause   = 30 * time.Second
	// A part that ran this long was well; the next failure begins at firstPause again.
	wellAfter = time.Minute
)

// Report tells the board about a row of the part.
type Report func(row string, state board.State, err error)

// Part is something that runs.
type Part struct {
	// Name of the part.
	Name string
	// Rows of the board that the part reports itself, if it is more than its name.
	Rows []string
	// After names the rows that must be up before the part is started.
	After []string
	// Fatal parts end everything when they end. Others are started again.
	Fatal bool
	// Run does the part's work until ctx ends. It reports when a row is up.
	Run func(ctx context.Context, report Report) error
}

func (p Part) rows() []string {
	if len(p.Rows) > 0 {
		return p.Rows
	}
	return []string{p.Name}
}

// Rows of all parts, in order.
func Rows(parts []Part) []string {
	var rows []string
	for _, p := range parts {
		rows = append(rows, p.rows()...)
	}
	return rows
}

// Run runs the parts until ctx ends or a fatal part does, stops them from the last to the first, and returns the fatal
// part's error.
func Run(ctx context.Context, b *board.Board, parts []Part) error {
	told := ctx
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	// Parts do not end with ctx but one after the other, the last first.
	type running struct {
		stop context.CancelFunc
		done chan struct{}
	}
	started := make([]running, 0, len(parts))
	var wg sync.WaitGroup
	for _, p := range parts {
		partCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := running{stop: stop, done: make(chan struct{})}
		started = append(started, r)
		wg.Go(func() {
			defer close(r.done)
			if err := keep(partCtx, b, p); err != nil {
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
	if told.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

// keep runs the part until ctx ends, again and again. It returns an error only if the part is fatal.
func keep(ctx context.Context, b *board.Board, p Part) error {
	report := func(row string, state board.State, err error) { b.Set(row, state, err) }
	pause := firstPause
	for {
		if err := b.WaitUp(ctx, p.After); err != nil {
			return nil //nolint:nilerr // told to stop before it started
		}
		// A part with several rows says itself which of them is starting.
		if len(p.Rows) == 0 {
			b.Set(p.Name, board.Starting, nil)
		}
		began := time.Now()
		err := p.Run(ctx, report)
		if ctx.Err() != nil {
			setAll(b, p, board.Stopped, nil)
			return nil //nolint:nilerr // what a part says when it is told to stop is no news
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		setAll(b, p, board.Down, err)
		if p.Fatal {
			return fmt.Errorf("running %s: %w", p.Name, err)
		}
		if time.Since(began) >= wellAfter {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, maxPause)
	}
}

// setAll sets the part's rows, except that a row which was never started and one which already said why it is down
// keep what they say.
func setAll(b *board.Board, p Part, state board.State, err error) {
	current, _ := b.Snapshot()
	for _, row := range p.rows() {
		i := slices.IndexFunc(current, func(c board.Part) bool { return c.Name == row })
		if i >= 0 && len(p.Rows) > 0 && (current[i].State == board.Waiting || current[i].State == board.Down) {
			continue
		}
		b.Set(row, state, err)
	}
}
