// Package status hands the board of a running Flyball to other processes, over a unix socket: `flyball status` asks
// once, `flyball up --detach` follows it. The socket is the protection: only root can reach it.
package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"flyball.dev/host/board"
)

// Status is what a running Flyball says of itself.
type Status struct {
	// Role is what was started: up, server or agent.
	Role string `json:"role"`
	// PID of the process.
	PID int `json:"pid"`
	// Version of Flyball.
	Version string `json:"version"`
	// NodeName of this machine.
	NodeName string `json:"nodeName"`
	// DataDir is the data directory in use.
	DataDir string `json:"dataDir"`
	// StartedAt is when the process began.
	StartedAt time.Time `json:"startedAt"`
	// Parts and their states.
	Parts []board.Part `json:"parts"`
}

// Up tells whether every part is up.
func (s Status) Up() bool {
	for _, p := range s.Parts {
		if p.State != board.Up {
			return false
		}
	}
	return true
}

// ErrNotRunning is returned when nothing answers at the socket.
var ErrNotRunning = errors.New("flyball is not running")

// Listen opens the socket. Whoever calls it holds the lock of the run-time directory, so a socket that is already there
// was left behind.
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

// Serve answers at the listener until ctx ends: /status with the present state, /watch with a line for each change.
func Serve(ctx context.Context, l net.Listener, about Status, b *board.Board) error {
	mux := http.NewServeMux()
	now := func() (Status, <-chan struct{}) {
		s := about
		var changed <-chan struct{}
		s.Parts, changed = b.Snapshot()
		return s, changed
	}
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		s, _ := now()
		_ = json.NewEncoder(w).Encode(s) // the reader went away
	})
	mux.HandleFunc("GET /watch", func(w http.ResponseWriter, r *http.Request) {
		for {
			s, changed := now()
			if json.NewEncoder(w).Encode(s) != nil || http.NewResponseController(w).Flush() != nil {
				return
			}
			select {
			case <-changed:
			case <-r.Context().Done():
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

// Get asks once.
func Get(ctx context.Context, socket string) (*Status, error) {
	var got *Status
	err := read(ctx, socket, "/status", func(s Status) bool { got = &s; return false })
	return got, err
}

// Watch calls seen with the present state and at each change, until seen returns false, ctx ends or the process does.
func Watch(ctx context.Context, socket string, seen func(Status) bool) error {
	return read(ctx, socket, "/watch", seen)
}

func read(ctx context.Context, socket, path string, seen func(Status) bool) error {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://flyball"+path, nil)
	if err != nil {
		return fmt.Errorf("asking for the status: %w", err)
	}
	resp, err := client.Do(req)
	switch {
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("asking for the status: %w: run as root", err)
	case err != nil && ctx.Err() == nil:
		return ErrNotRunning
	case err != nil:
		return fmt.Errorf("asking for the status: %w", err)
	}
	defer resp.Body.Close()
	decoder := json.NewDecoder(resp.Body)
	for {
		var s Status
		if err := decoder.Decode(&s); err != nil {
			return fmt.Errorf("reading the status: %w", err)
		}
		if !seen(s) {
			return nil
		}
	}
}
