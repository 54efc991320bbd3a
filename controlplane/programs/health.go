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

// healthTimeout is how long a health request waits for a server that is starting before it fails.
const healthTimeout = 5 * time.Second

var healthPaths = map[string]bool{"/healthz": true, "/livez": true, "/readyz": true}

// health lets early health requests wait until the server and the loops behind it are up. envtest
// polls every 100 ms; this way it learns it at once and not at its next request.
type health struct {
	stopped  <-chan struct{}
	loopback chan *rest.Config // holds one
	opened   chan struct{}
	settle   func() // called when the server is up
}

// open answers health requests once the server and the loops behind it are up. It returns when ctx
// ends or the loops fail.
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
	if err := behind(ctx, Server{Client: loopback, Options: o}, up); err != nil && ctx.Err() == nil {
		return fmt.Errorf("running the loops behind kube-apiserver: %w", err)
	}
	return nil
}

// wrap delays health requests of all clients but the server's own, by which open learns whether the
// server is ready.
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

func (h *health) wait(ctx context.Context) bool {
	select {
	case <-h.opened:
	case <-h.stopped:
	case <-ctx.Done():
	case <-time.After(healthTimeout):
		return false
	}
	return true
}
