package server

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/client-go/kubernetes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Pods are the Pods of this node, with their newest status: it may not have been written to the API
// server yet. Callers do not change them.
type Pods interface {
	Pods() []*v1.Pod
	Pod(namespace, name string) (*v1.Pod, bool)
}

// Stats measures what the node and its Pods use; *stats.Provider implements it.
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error)
}

// Config of a Server. A field is required unless its comment says otherwise.
type Config struct {
	NodeName string
	// Client authenticates and authorizes callers through the API server.
	Client  kubernetes.Interface
	Pods    Pods
	Runtime runtimeapi.RuntimeServiceClient
	Stats   Stats
	// Metrics are served under /metrics together with those of the process.
	Metrics prometheus.Gatherer
	// ProbeMetrics is served under /metrics/probes, Cadvisor under /metrics/cadvisor.
	ProbeMetrics, Cadvisor http.Handler
	// Healthy fails /healthz while it returns an error.
	Healthy func() error
	// Configuration is served under /configz.
	Configuration *kubeletconfig.KubeletConfiguration

	BindAddress netip.Addr
	Port        int
	// GetCertificate returns the server's certificate at each handshake.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCA signs the client certificates that are accepted.
	ClientCA *x509.CertPool
	// HostLogDir is served under /logs/; /var/log if empty.
	HostLogDir string
}

// shutdownTimeout bounds the answers that are being written at the end. Their contexts have ended
// by then, so a short time is enough; HTTP/2 connections would otherwise take a whole second.
const shutdownTimeout = 250 * time.Millisecond

// Server serves the kubelet's API.
type Server struct {
	cfg      Config
	auth     *auth
	requests *requests
}

// New returns a Server that does not listen yet.
func New(cfg Config) (*Server, error) {
	cfg.HostLogDir = cmp.Or(cfg.HostLogDir, "/var/log")
	a, err := newAuth(cfg)
	if err != nil {
		return nil, err
	}
	return &Server{cfg: cfg, auth: a, requests: newRequests()}, nil
}

// Run listens and serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	address := netip.AddrPortFrom(s.cfg.BindAddress, uint16(s.cfg.Port)).String()
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("listening on %s for the API server (is another kubelet running?): %w", address, err)
	}
	return s.Serve(ctx, l)
}

// Serve is Run on a listener that is already open. It closes it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Requests end with ctx: kubectl logs --follow would otherwise delay the shutdown until the
	// container ends.
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       90 * time.Second,
		// Quiet: port scanners and load balancers break off handshakes on every healthy node.
		ErrorLog: slog.NewLogLogger(logr.ToSlogHandler(klog.FromContext(ctx).V(4)), slog.LevelInfo),
		TLSConfig: &tls.Config{
			GetCertificate: s.cfg.GetCertificate,
			ClientCAs:      s.cfg.ClientCA,
			// Requested, not required: a caller with a token has none.
			ClientAuth: tls.RequestClientCert,
			MinVersion: tls.VersionTLS12,
			NextProtos: []string{"h2", "http/1.1"},
		},
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(l, "", "") }()
	select {
	case err := <-done:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	last, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer stop()
	_ = srv.Shutdown(last)
	_ = srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}

// Handler serves all paths, with authentication and authorization.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	runtime := healthz.NamedCheck("syncloop", func(*http.Request) error { return s.cfg.Healthy() })
	healthz.InstallHandler(mux, healthz.PingHealthz, runtime)
	for _, end := range []string{"", "/{$}"} {
		mux.HandleFunc("GET /pods"+end, s.servePods)
		mux.HandleFunc("GET /runningpods"+end, s.serveRunningPods)
	}
	mux.HandleFunc("GET /logs/", s.serveHostLogs)
	mux.HandleFunc("GET /configz", s.serveConfiguration)
	mux.HandleFunc("GET /stats/summary", s.serveSummary)

	s.handleContainers(mux)
	mux.Handle("GET /metrics", s.metrics())
	mux.Handle("GET /metrics/resource", resourceMetrics(s.cfg.Stats))
	mux.Handle("GET /metrics/probes", s.cfg.ProbeMetrics)
	mux.Handle("GET /metrics/cadvisor", s.cfg.Cadvisor)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return s.requests.count(s.auth.require(mux))
}

// Containers serves the logs and streams of containers without authentication, for simulated nodes,
// which have no secrets. It uses Pods and Runtime of the Config.
func Containers(cfg Config) http.Handler {
	mux := http.NewServeMux()
	(&Server{cfg: cfg}).handleContainers(mux)
	return mux
}

func (s *Server) handleContainers(mux *http.ServeMux) {
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.serveContainerLogs)
	for _, pod := range []string{"{namespace}/{pod}", "{namespace}/{pod}/{uid}"} {
		for _, method := range []string{"GET", "POST"} {
			mux.HandleFunc(method+" /exec/"+pod+"/{container}", s.serveExec)
			mux.HandleFunc(method+" /attach/"+pod+"/{container}", s.serveAttach)
			mux.HandleFunc(method+" /portForward/"+pod, s.servePortForward)
		}
		mux.HandleFunc("POST /run/"+pod+"/{container}", s.serveRun)
	}
}

func (s *Server) serveSummary(w http.ResponseWriter, r *http.Request) {
	only, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory"))
	summary, err := s.cfg.Stats.Summary(r.Context(), only)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, summary)
}

func (s *Server) serveConfiguration(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, map[string]any{"kubeletconfig": s.cfg.Configuration})
}

func writeJSON(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "encoding the answer: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}
