package kubelet

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// recorded is a component that records when it starts and stops, and fails after all have started if it is to.
type recorded struct {
	name    string
	journal chan<- string
	fails   <-chan error
}

func (r recorded) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		r.journal <- r.name
		return ctx.Err()
	case err := <-r.fails:
		return err
	}
}

func TestRunAll(t *testing.T) {
	boom := errors.New("boom")
	for name, tc := range map[string]struct {
		reason string
		fails  error
		want   []string
	}{
		"Stopped": {"the last that started stops first, and stopping is no error", nil, []string{"c", "b", "a"}},
		"Failed":  {"the others stop in the same order, and the cause is returned", boom, []string{"c", "a"}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			journal, fails := make(chan string, 3), make(chan error, 1)
			if tc.fails == nil {
				cancel()
			} else {
				fails <- tc.fails
			}
			err := runAll(ctx, recorded{"a", journal, nil}, recorded{"b", journal, fails}, recorded{"c", journal, nil})
			if !errors.Is(err, tc.fails) {
				t.Errorf("%s: error %v, want %v", tc.reason, err, tc.fails)
			}
			close(journal)
			var got []string
			for n := range journal {
				got = append(got, n)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s: stopped (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}
