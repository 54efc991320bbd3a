package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// health answers load balancers that ask, at a Service's healthCheckNodePort, whether this node has
// endpoints of it: 200 if it has, 503 if not, with the body that kube-proxy gives. It is not safe
// for concurrent use.
type health struct {
	servers map[string]*healthServer // by Service
	serving sync.WaitGroup

	failed  map[string]Service // whose port could not be opened: another process has it
	backoff wait.Backoff
	due     <-chan time.Time // when retry is to be called; nil: no port failed
}

type healthServer struct {
	port   uint16
	server *http.Server
	local  atomic.Int64
}

func newHealth() *health {
	return &health{servers: map[string]*healthServer{}, failed: map[string]Service{}}
}

// set starts, moves or stops the server of a Service, and sets how many ready endpoints are on this
// node. If another process has the port, the error says so, and retry tries again.
func (h *health) set(svc Service) error {
	err := h.open(svc)
	if err != nil {
		h.backoff = wait.Backoff{Duration: time.Second, Factor: 2, Steps: 10, Cap: 5 * time.Minute}
		h.due = time.After(h.backoff.Step())
	}
	return err
}

// retry opens the ports that could not be opened. The kernel has no event for a port that is free
// again, so the time until the next try doubles.
func (h *health) retry() {
	h.due = nil
	for _, svc := range slices.Collect(maps.Values(h.failed)) {
		if h.open(svc) != nil && h.due == nil {
			h.due = time.After(h.backoff.Step())
		}
	}
}

func (h *health) open(svc Service) error {
	delete(h.failed, svc.Name)
	s := h.servers[svc.Name]
	if s != nil && s.port != svc.HealthCheckNodePort {
		_ = s.server.Close()
		delete(h.servers, svc.Name)
		s = nil
	}
	if svc.HealthCheckNodePort == 0 {
		return nil
	}
	if s == nil {
		at := fmt.Sprintf(":%d", svc.HealthCheckNodePort)
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", at)
		if err != nil {
			h.failed[svc.Name] = svc
			return fmt.Errorf("listening on healthCheckNodePort of Service %s (free the port, or choose another): %w",
				svc.Name, err)
		}
		s = &healthServer{port: svc.HealthCheckNodePort}
		s.server = &http.Server{Handler: s.handler(svc.Name), ReadHeaderTimeout: 5 * time.Second}
		h.servers[svc.Name] = s
		h.serving.Go(func() { _ = s.server.Serve(listener) })
	}
	s.local.Store(int64(svc.localReady()))
	return nil
}

// close stops all servers and waits for them.
func (h *health) close() error {
	var errs []error
	for _, s := range h.servers {
		errs = append(errs, s.server.Close())
	}
	h.serving.Wait()
	return errors.Join(errs...)
}

func (s *healthServer) handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		local := s.local.Load()
		namespace, name, _ := strings.Cut(name, "/")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(local, 10))
		if local == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"service":             map[string]string{"namespace": namespace, "name": name},
			"localEndpoints":      local,
			"serviceProxyHealthy": true,
		})
	})
}
