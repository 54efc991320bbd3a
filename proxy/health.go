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
	"time"
)

// health answers load balancers that ask, at a Service's healthCheckNodePort,
// whether this node has endpoints of it: 200 if it has, 503 if not, with the
// body that kube-proxy gives.
type health struct {
	mu       sync.Mutex
	services map[string]*healthServer // by Service
	failed   map[string]Service       // whose port could not be opened
}

type healthServer struct {
	port   uint16
	server *http.Server

	mu    sync.Mutex
	local int
}

func newHealth() *health {
	return &health{services: map[string]*healthServer{}, failed: map[string]Service{}}
}

// set starts, moves or stops the server of a Service, and tells it how many
// ready endpoints are on this node. If the port is taken, the error says so, and
// retry tries again.
func (h *health) set(svc Service) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.failed, svc.Name)
	s := h.services[svc.Name]
	if s != nil && s.port != svc.HealthCheckNodePort {
		_ = s.server.Close()
		delete(h.services, svc.Name)
		s = nil
	}
	if svc.HealthCheckNodePort == 0 {
		return nil
	}
	if s == nil {
		listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp4", fmt.Sprintf(":%d", svc.HealthCheckNodePort))
		if err != nil {
			h.failed[svc.Name] = svc
			return fmt.Errorf("listening on healthCheckNodePort of Service %s (free the port, or choose another): %w", svc.Name, err)
		}
		s = &healthServer{port: svc.HealthCheckNodePort}
		s.server = &http.Server{Handler: s.handler(svc.Name), ReadHeaderTimeout: 5 * time.Second}
		h.services[svc.Name] = s
		go func() { _ = s.server.Serve(listener) }()
	}
	s.mu.Lock()
	s.local = svc.localReady()
	s.mu.Unlock()
	return nil
}

// retry opens the ports that could not be opened, and says whether all are by now.
func (h *health) retry() bool {
	h.mu.Lock()
	failed := slices.Collect(maps.Values(h.failed))
	h.mu.Unlock()
	done := true
	for _, svc := range failed {
		done = h.set(svc) == nil && done
	}
	return done
}

func (h *health) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for name, s := range h.services {
		errs = append(errs, s.server.Close())
		delete(h.services, name)
	}
	return errors.Join(errs...)
}

func (s *healthServer) handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		local := s.local
		s.mu.Unlock()
		namespace, name, _ := strings.Cut(name, "/")
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(local))
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
