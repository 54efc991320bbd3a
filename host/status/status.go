// Package status keeps the state of each component of Flyball, and serves it to other processes
// over a unix socket: `flyball status` reads it once, `flyball up --detach` watches it. Only root
// can reach the socket.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// Status is what a running Flyball reports.
type Status struct {
	// Role is what was started: up, server or agent.
	Role string `json:"role"`
	// PID of the process.
	PID int `json:"pid"`
	// Version of Flyball.
	Version string `json:"version"`
	// NodeName is the name of this host's Node.
	NodeName string `json:"nodeName"`
	// DataDir is the data directory in use.
	DataDir string `json:"dataDir"`
	// StartedAt is when the process began.
	StartedAt time.Time `json:"startedAt"`
	// Components and their states.
	Components []Component `json:"parts"`
}

// event is a line of /watch.
type event struct {
	Status
	// Settled says that the start is over, see Table.Snapshot.
	Settled bool `json:"settled"`
}

// ErrNotRunning is returned when nothing answers at the socket.
var ErrNotRunning = errors.New("flyball is not running")

// Listen opens the socket. The caller holds the lock of the run-time directory, so an existing
// socket is that of a process that has ended.
func Listen(socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, fmt.Errorf("creating the run-time directory: %w", err)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing the status socket of an earlier run: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("opening the status socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("protecting the status socket: %w", err)
	}
	return l, nil
}

// Serve answers at the listener until ctx ends: /status with the present state, /watch with a line
// for each change.
func Serve(ctx context.Context, l net.Listener, about Status, t *Table) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s := about
		s.Components, _, _ = t.Snapshot()
		_ = json.NewEncoder(w).Encode(s) // the reader went away
	})
	mux.HandleFunc("GET /watch", func(w http.ResponseWriter, r *http.Request) {
		e := event{Status: about}
		for e.Components, e.Settled = range t.Changes(r.Context()) {
			if json.NewEncoder(w).Encode(e) != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
		}
	})
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the status: %w", err)
	}
	return nil
}

// Get reads the status once.
func Get(ctx context.Context, socket string) (*Status, error) {
	decoder, closer, err := request(ctx, socket, "/status")
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	s := &Status{}
	if err := decoder.Decode(s); err != nil {
		return nil, fmt.Errorf("reading the status: %w", err)
	}
	return s, nil
}

// All reads the status at every socket that is served. If there is none, the error wraps
// ErrNotRunning.
func All(ctx context.Context, sockets []string) ([]Status, error) {
	var all []Status
	for _, socket := range sockets {
		s, err := Get(ctx, socket)
		switch {
		case err == nil:
			all = append(all, *s)
		case !errors.Is(err, ErrNotRunning):
			return nil, err
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("asking for the status: %w; `flyball up --detach` starts it", ErrNotRunning)
	}
	return all, nil
}

// Watch sends the present components and those after each change to states, until the start is
// over, see Table.Snapshot, ctx ends or the process does. It returns the components that it read
// last.
func Watch(ctx context.Context, socket string, states chan<- []Component) ([]Component, error) {
	decoder, closer, err := request(ctx, socket, "/watch")
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	var last []Component
	for {
		var e event
		if err := decoder.Decode(&e); err != nil {
			return last, fmt.Errorf("reading the status: %w", err)
		}
		last = e.Components
		states <- last
		if e.Settled {
			return last, nil
		}
	}
}

func request(ctx context.Context, socket, path string) (*json.Decoder, io.Closer, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://flyball"+path, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("asking for the status: %w", err)
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, nil, fmt.Errorf("asking for the status: %w: run as root", err)
	case err != nil && ctx.Err() == nil:
		return nil, nil, ErrNotRunning
	case err != nil:
		return nil, nil, fmt.Errorf("asking for the status: %w", err)
	}
	return json.NewDecoder(resp.Body), resp.Body, nil
}
