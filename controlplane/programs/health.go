package programs

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"flyball.dev/controlplane"
)

// healthPatience is how long a health request waits for a server that is starting before it is told that it is not ready.
const healthPatience = 5 * time.Second

// healthPaths are what those who wait for the server ask for.
var healthPaths = map[string]bool{"/healthz": true, "/livez": true, "/readyz": true}

// health lets whoever asks early wait until the server and what is behind it work. envtest asks every 100 ms; so it hears
// of it at once, and not at its next question.
type health struct {
	stopped  <-chan struct{}
	loopback chan *rest.Config
	opened   chan struct{}
	settle   func()
}

// newHealth returns the health of a server that stops when ctx ends. settle is called when it works.
func newHealth(ctx context.Context, settle func()) *health {
	return &health{settle: settle, stopped: ctx.Done(), loopback: make(chan *rest.Config, 1), opened: make(chan struct{})}
}

// open returns when the server and what is behind it work, and everybody is told so, or with what failed. What is behind
// runs on.
func (h *health) open(ctx context.Context, o *options.ServerRunOptions, behind Behind) error {
	var loopback *rest.Config
	select {
	case loopback = <-h.loopback:
	case <-ctx.Done():
		return nil
	}
	if err := controlplane.WaitReady(ctx, loopback); err != nil {
		return nil //nolint:nilerr // ctx ended
	}
	up := func() {
		close(h.opened)
		h.settle()
	}
	if behind == nil {
		up()
		return nil
	}
	err := behind(ctx, Server{Client: loopback, Options: o}, up)
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("running what is behind kube-apiserver: %w", err)
	}
	return nil
}

// wrap holds health requests of others back; the server's own client is what finds out whether it is healthy.
func (h *health) wrap(loopback *rest.Config, handler http.Handler) http.Handler {
	h.loopback <- loopback
	own := "Bearer " + loopback.BearerToken
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if healthPaths[r.URL.Path] && r.Header.Get("Authorization") != own && !h.wait(r.Context()) {
			http.Error(w, "this server is still starting", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r)
	})
}

// wait returns true when the server may be asked for its health.
func (h *health) wait(ctx context.Context) bool {
	select {
	case <-h.opened:
		return true
	default:
	}
	patience := time.NewTimer(healthPatience)
	defer patience.Stop()
	select {
	case <-h.opened:
	case <-h.stopped:
	case <-ctx.Done():
	case <-patience.C:
		return false
	}
	return true
}
