package controlplane

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
)

// fakeComponent fails with err, or is up until it is stopped.
type fakeComponent struct {
	err error
}

func (f fakeComponent) run(ctx context.Context, up func()) error {
	if f.err != nil {
		return f.err
	}
	up()
	<-ctx.Done()
	return nil
}

func TestGroup(t *testing.T) {
	broken := errors.New("broken")
	for name, tc := range map[string]struct {
		reason string
		last   error // of the last component
		want   []string
	}{
		"Stopped": {
			reason: "components stop in reverse order",
			want:   []string{"a up", "b up", "c up", "c down", "b down", "a down"},
		},
		"Failed": {
			reason: "when one fails, the others stop, and those that need it never start",
			last:   broken, want: []string{"a up", "b up", "c down", "b down", "a down"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var mu sync.Mutex
			var got []string
			g := newGroup(ctx, func(component, state string, _ error) {
				mu.Lock()
				defer mu.Unlock()
				if state != StateStarting {
					got = append(got, component+" "+state)
				}
				if component == "d" && state == StateUp {
					stop()
				}
			})
			a := g.start("a", fakeComponent{}.run)
			b := g.start("b", fakeComponent{}.run, a)
			c := g.start("c", fakeComponent{err: tc.last}.run, b)
			g.start("d", fakeComponent{}.run, c)
			err := g.wait()
			got = slices.DeleteFunc(got, func(s string) bool { return s[0] == 'd' })
			if !errors.Is(err, tc.last) || !slices.Equal(got, tc.want) {
				t.Errorf("%s: got %v, %q, want %v, %q", tc.reason, err, got, tc.last, tc.want)
			}
		})
	}
}
