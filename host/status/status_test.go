package status

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
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
	table := &Table{}
	etcd := table.Add("etcd")
	served := make(chan error)
	go func() { served <- Serve(ctx, l, Status{Role: "up", PID: 7}, table) }()

	var seen []State
	states, read := make(chan []Component), make(chan struct{})
	go func() {
		defer close(read)
		for components := range states {
			seen = append(seen, components[0].State)
			switch components[0].State {
			case Waiting:
				etcd.Set(Starting, nil)
			case Starting:
				etcd.Up()
			}
		}
	}()
	last, err := Watch(t.Context(), socket, states)
	close(states)
	<-read
	if err != nil || len(last) != 1 || last[0].State != Up {
		t.Fatalf("Watch() = %+v, %v", last, err)
	}
	if diff := cmp.Diff([]State{Waiting, Starting, Up}, seen); diff != "" {
		t.Errorf("Watch(): -want, +got:\n%s", diff)
	}

	got, err := Get(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	want := &Status{Role: "up", PID: 7, Components: []Component{{Name: "etcd", State: Up}}}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(Component{}, "Since", "Took")); diff != "" {
		t.Errorf("Get(): -want, +got:\n%s", diff)
	}

	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve() = %v", err)
	}
}
