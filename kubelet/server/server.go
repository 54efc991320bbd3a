package server

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/client-go/kubernetes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// Pods are the pods of this node, with their newest status (the one that is
// about to be written, if the API does not have it yet). Callers do not change
// what they get.
type Pods interface {
	Pods() []*v1.Pod
	Pod(namespace, name string) (*v1.Pod, bool)
}

// Runtime is the part of CRI that the server needs; runtimeapi.RuntimeServiceClient has it.
type Runtime interface {
	streams
	lists
	ContainerStatus(ctx context.Context, in *runtimeapi.ContainerStatusRequest, opts ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error)
	ExecSync(ctx context.Context, in *runtimeapi.ExecSyncRequest, opts ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error)
}

type streams interface {
	Exec(ctx context.Context, in *runtimeapi.ExecRequest, opts ...grpc.CallOption) (*runtimeapi.ExecResponse, error)
	Attach(ctx context.Context, in *runtimeapi.AttachRequest, opts ...grpc.CallOption) (*runtimeapi.AttachResponse, error)
	PortForward(ctx context.Context, in *runtimeapi.PortForwardRequest, opts ...grpc.CallOption) (*runtimeapi.PortForwardResponse, error)
}

type lists interface {
	ListPodSandbox(ctx context.Context, in *runtimeapi.ListPodSandboxRequest, opts ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error)
	ListContainers(ctx context.Context, in *runtimeapi.ListContainersRequest, opts ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error)
}

// Stats measures; *stats.Provider does.
type Stats interface {
	Summary(ctx context.Context, onlyCPUAndMemory bool) (*statsapi.Summary, error)
}

// Config is what a Server is made of.
type Config struct {
	NodeName string
	// Client asks the API server who a caller is and what he may do.
	Client  kubernetes.Interface
	Pods    Pods
	Runtime Runtime
	Stats   Stats
	// Metrics are served under /metrics together with those that libraries keep for
	// the whole process. May be nil.
	Metrics prometheus.Gatherer
	// ProbeMetrics is served under /metrics/probes, Cadvisor under /metrics/cadvisor. May be nil.
	ProbeMetrics, Cadvisor http.Handler
	// Healthy fails /healthz while it returns an error. May be nil.
	Healthy func() error
	// Configuration is what /configz shows. May be nil.
	Configuration *kubeletconfig.KubeletConfiguration

	BindAddress netip.Addr
	Port        int
	// GetCertificate is what the server shows, asked at each handshake.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// ClientCA signs the client certificates that are accepted.
	ClientCA *x509.CertPool
	// HostLogDir is served under /logs/; by default /var/log.
	HostLogDir string
	// Listening is called once, when the port is open. May be nil.
	Listening func()
}

// shutdownGrace is how long answers that are being written may take at the end.
// Their contexts have ended by then, so that short is enough; HTTP/2 connections
// would otherwise be waited for a whole second.
const shutdownGrace = 250 * time.Millisecond

// Server answers on the kubelet's port. Make it with New.
type Server struct {
	cfg      Config
	auth     *auth
	requests *requests
}

// New checks the Config and builds the Server. It does not listen yet.
func New(cfg Config) (*Server, error) {
	if cfg.HostLogDir == "" {
		cfg.HostLogDir = "/var/log"
	}
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
	if s.cfg.Listening != nil {
		s.cfg.Listening()
	}
	return s.Serve(ctx, l)
}

// Serve is Run on a listener that is already open. It closes it.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	// Requests end with ctx: a kubectl logs --follow would otherwise hold up the
	// shutdown for as long as the container runs.
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	srv := &http.Server{
		Handler:           s.Handler(),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       90 * time.Second,
		ErrorLog:          quietLog(ctx),
		TLSConfig: &tls.Config{
			GetCertificate: s.cfg.GetCertificate,
			ClientCAs:      s.cfg.ClientCA,
			// Asked for, not required: a caller with a token has none.
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
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), shutdownGrace)
	defer stop()
	_ = srv.Shutdown(grace)
	_ = srv.Close()
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}

// quietLog takes what net/http complains about: handshakes that port scanners and
// load balancers break off are no news of a healthy node.
func quietLog(ctx context.Context) *log.Logger {
	return log.New(logWriter{klog.FromContext(ctx).V(4)}, "", 0)
}

type logWriter struct{ to klog.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.to.Info("The HTTPS server complains", "about", strings.TrimSpace(string(p)))
	return len(p), nil
}

// Handler is everything that is served, behind authentication and authorization.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	healthz.InstallHandler(mux, healthz.PingHealthz, healthz.NamedCheck("syncloop", func(*http.Request) error {
		if s.cfg.Healthy == nil {
			return nil
		}
		return s.cfg.Healthy()
	}))
	mux.HandleFunc("GET /pods", s.servePods)
	mux.HandleFunc("GET /pods/{$}", s.servePods)
	mux.HandleFunc("GET /runningpods", s.serveRunningPods)
	mux.HandleFunc("GET /runningpods/{$}", s.serveRunningPods)
	mux.HandleFunc("GET /logs/", s.serveHostLogs)
	mux.HandleFunc("GET /configz", s.serveConfiguration)
	mux.HandleFunc("GET /stats/summary", s.serveSummary)

	s.handleContainers(mux)
	mux.Handle("GET /metrics", s.metrics())
	mux.Handle("GET /metrics/resource", resourceMetrics(s.cfg.Stats))
	if s.cfg.ProbeMetrics != nil {
		mux.Handle("GET /metrics/probes", s.cfg.ProbeMetrics)
	}
	if s.cfg.Cadvisor != nil {
		mux.Handle("GET /metrics/cadvisor", s.cfg.Cadvisor)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return s.requests.count(s.auth.require(mux))
}

// Containers is what is served about containers, logs and streams, with no
// authentication in front of it: for simulated nodes, which have nothing to hide.
// Of the Config it needs Pods and Runtime.
func Containers(cfg Config) http.Handler {
	mux := http.NewServeMux()
	(&Server{cfg: cfg}).handleContainers(mux)
	return mux
}

func (s *Server) handleContainers(mux *http.ServeMux) {
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.serveContainerLogs)
	for _, name := range []string{"{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"} {
		for _, method := range []string{"GET", "POST"} {
			mux.HandleFunc(method+" /exec/"+name, s.serveExec)
			mux.HandleFunc(method+" /attach/"+name, s.serveAttach)
		}
		mux.HandleFunc("POST /run/"+name, s.serveRun)
	}
	for _, name := range []string{"{namespace}/{pod}", "{namespace}/{pod}/{uid}"} {
		for _, method := range []string{"GET", "POST"} {
			mux.HandleFunc(method+" /portForward/"+name, s.servePortForward)
		}
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
