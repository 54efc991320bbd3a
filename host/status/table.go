package status

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// State is what a component is doing.
type State string

// The states of a component.
const (
	// Waiting components have not been started: what they need is not up yet.
	Waiting State = "waiting"
	// Starting components run but are not ready.
	Starting State = "starting"
	// Up components do their work.
	Up State = "up"
	// Down components ended with an error. They are started again after a pause, unless they end
	// the whole process.
	Down State = "down"
	// Stopped components ended because the process ends.
	Stopped State = "stopped"
)

// Component is the state of one component at one moment.
type Component struct {
	// Name of the component.
	Name string `json:"name"`
	// State is what the component is doing.
	State State `json:"state"`
	// Since is when State last changed.
	Since time.Time `json:"since"`
	// Took is how long the component took to come up, the last time it did.
	Took time.Duration `json:"took,omitempty"`
	// LastError is why the component was last down. It is kept when the component is up again.
	LastError string `json:"lastError,omitempty"`
	// LastErrorTime is when that was.
	LastErrorTime *time.Time `json:"lastErrorTime,omitempty"`
	// Restarts is how often the component was started again.
	Restarts int `json:"restarts,omitempty"`
}

// Rows are the components as lines of a table, with columns that are separated by tabs.
func Rows(components []Component, now time.Time) []string {
	rows := []string{"PART\tSTATE\tSINCE\tRESTARTS\tLAST ERROR"}
	for _, c := range components {
		lastError := ""
		if c.LastErrorTime != nil {
			lastError = fmt.Sprintf("%s (%s ago)", c.LastError, duration.HumanDuration(now.Sub(*c.LastErrorTime)))
		}
		rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%d\t%s", c.Name, c.State, duration.HumanDuration(now.Sub(c.Since)), c.Restarts, lastError))
	}
	return rows
}

// NotUp returns an error that names the components that are not up, with their errors; nil if there
// are none.
func NotUp(components []Component) error {
	var lines []string
	for _, c := range components {
		if c.State != Up {
			lines = append(lines, fmt.Sprintf("%s is %s: %s", c.Name, c.State, c.LastError))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return errors.New(strings.Join(lines, "; "))
}

// Table holds the states of all components of a process, in the order in which they are shown. The
// zero Table is empty. It is safe for concurrent use.
type Table struct {
	mu      sync.Mutex
	entries []*Entry
	changed chan struct{}
}

// Entry is the row of one component in a Table: the component and its supervisor write it, and
// components that need it wait for it.
type Entry struct {
	table *Table

	// Guarded by the table's lock.
	component Component
	required  bool
}

// Add adds a component, which waits.
func (t *Table) Add(name string) *Entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := &Entry{table: t, component: Component{Name: name, State: Waiting, Since: time.Now()}}
	t.entries = append(t.entries, e)
	t.notify()
	return e
}

// notify wakes everybody who waits for a change. The lock is held.
func (t *Table) notify() {
	if t.changed != nil {
		close(t.changed)
	}
	t.changed = make(chan struct{})
}

// Snapshot returns the components, whether they have settled, and a channel that is closed at the
// next change. They have settled when the start is over: every required component is up, and every
// other one is up or has an error that says why it is not.
func (t *Table) Snapshot() (components []Component, settled bool, changed <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	settled = true
	for _, e := range t.entries {
		c := e.component
		components = append(components, c)
		if e.required && c.State != Up || c.State == Waiting || c.State == Starting && c.LastError == "" {
			settled = false
		}
	}
	return components, settled, t.changed
}

// WasReady reports whether a required component has ever been up.
func (t *Table) WasReady() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.ContainsFunc(t.entries, func(e *Entry) bool { return e.required && e.component.Took > 0 })
}

// Changes yields the present components and those after each change, and whether they have settled,
// see Snapshot. It ends with ctx.
func (t *Table) Changes(ctx context.Context) iter.Seq2[[]Component, bool] {
	return func(yield func([]Component, bool) bool) {
		for {
			components, settled, changed := t.Snapshot()
			if !yield(components, settled) {
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}
}

// WaitUp returns once all of these components are up.
func (t *Table) WaitUp(ctx context.Context, entries []*Entry) error {
	for range t.Changes(ctx) {
		if !slices.ContainsFunc(entries, func(e *Entry) bool { return e.State() != Up }) {
			return nil
		}
	}
	return ctx.Err()
}

// Require keeps the start from being over before this component is up.
func (e *Entry) Require() *Entry {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	e.required = true
	return e
}

// State is what the component is doing.
func (e *Entry) State() State {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	return e.component.State
}

// Set records the component's state; err says why it is down.
func (e *Entry) Set(state State, err error) {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	e.component = next(e.component, state, err, time.Now())
	e.table.notify()
}

// Up records that the component does its work.
func (e *Entry) Up() { e.Set(Up, nil) }

// Report records an error that the component goes on after. Its state stays.
func (e *Entry) Report(err error) {
	e.table.mu.Lock()
	defer e.table.mu.Unlock()
	e.component = next(e.component, e.component.State, err, time.Now())
	e.table.notify()
}

// next is the component after it went to state.
func next(c Component, state State, err error, now time.Time) Component {
	if err != nil {
		c.LastError, c.LastErrorTime = err.Error(), &now
	}
	switch {
	case state == c.State:
		return c
	case state == Up && c.State == Starting:
		c.Took = now.Sub(c.Since)
	case c.State == Down && (state == Starting || state == Up):
		c.Restarts++
	}
	c.State, c.Since = state, now
	return c
}
