package status

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"flyball.dev/host/board"
)

func TestServe(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s.sock")
	if _, err := Get(t.Context(), socket); !errors.Is(err, ErrNotRunning) {
		t.Errorf("without a server, Get() = %v", err)
	}

	l, err := Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	b := board.New("etcd")
	served := make(chan error)
	go func() { served <- Serve(ctx, l, Status{Role: "up", PID: 7}, b) }()

	var seen []board.State
	err = Watch(t.Context(), socket, func(s Status) bool {
		seen = append(seen, s.Parts[0].State)
		switch s.Parts[0].State {
		case board.Waiting:
			b.Set("etcd", board.Starting, nil)
		case board.Starting:
			b.Set("etcd", board.Up, nil)
		}
		return !s.Up()
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]board.State{board.Waiting, board.Starting, board.Up}, seen); diff != "" {
		t.Errorf("Watch(): -want, +got:\n%s", diff)
	}

	got, err := Get(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	want := &Status{Role: "up", PID: 7, Parts: []board.Part{{Name: "etcd", State: board.Up}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(board.Part{}, "Since", "Took")); diff != "" {
		t.Errorf("Get(): -want, +got:\n%s", diff)
	}

	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve() = %v", err)
	}
}
