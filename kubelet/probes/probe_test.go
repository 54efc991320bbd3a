package probes

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/probe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func port(t *testing.T, address string) int32 {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return int32(n)
}

// closedPort is a port that refuses connections. It is bound, so that no other process listens
// there.
func closedPort(t *testing.T) int32 {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return int32(bound.(*unix.SockaddrInet4).Port)
}

// TestHandlers probes real listeners on loopback.
func TestHandlers(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ok" || r.Header.Get("X-Key") != "value" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	plainPort, securePort := port(t, plain.Listener.Addr().String()), port(t, secure.Listener.Addr().String())

	grpcListener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	grpcServer, states := grpc.NewServer(), health.NewServer()
	states.SetServingStatus("ill", healthpb.HealthCheckResponse_NOT_SERVING)
	healthpb.RegisterHealthServer(grpcServer, states)
	served := make(chan struct{})
	go func() { defer close(served); _ = grpcServer.Serve(grpcListener) }()
	defer func() { grpcServer.Stop(); <-served }()
	grpcPort := port(t, grpcListener.Addr().String())

	closedPort := closedPort(t)

	get := func(path string, p intstr.IntOrString, scheme v1.URIScheme) v1.ProbeHandler {
		return v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{
			Path: path, Port: p, Scheme: scheme, HTTPHeaders: []v1.HTTPHeader{{Name: "X-Key", Value: "value"}},
		}}
	}
	tests := map[string]struct {
		reason  string
		handler v1.ProbeHandler
		want    probe.Result
		message string
	}{
		"http": {
			reason:  "200 from the pod's address, with the headers of the probe.",
			handler: get("/ok", intstr.FromInt32(plainPort), ""), want: probe.Success,
		},
		"http, port by name": {
			reason:  "Named ports are the container's.",
			handler: get("/ok", intstr.FromString("web"), v1.URISchemeHTTP), want: probe.Success,
		},
		"http, unknown port": {
			reason:  "The attempt cannot be made: no verdict.",
			handler: get("/ok", intstr.FromString("nope"), v1.URISchemeHTTP), want: probe.Unknown,
		},
		"http 503": {
			reason:  "The message is upstream's and does not show the body.",
			handler: get("/no", intstr.FromInt32(plainPort), ""), want: probe.Failure,
			message: "HTTP probe failed with statuscode: 503",
		},
		"https": {
			reason:  "The certificate is not verified: a probe has no CA.",
			handler: get("/ok", intstr.FromInt32(securePort), v1.URISchemeHTTPS), want: probe.Success,
		},
		"tcp": {
			reason:  "It is enough that the port opens.",
			handler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(plainPort)}}, want: probe.Success,
		},
		"tcp closed": {
			reason:  "No process listens.",
			handler: v1.ProbeHandler{TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt32(closedPort)}}, want: probe.Failure,
			message: "connection refused",
		},
		"grpc": {
			reason:  "The health service of the whole server.",
			handler: v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: grpcPort}}, want: probe.Success,
		},
		"grpc not serving": {
			reason:  "The health of one service.",
			handler: v1.ProbeHandler{GRPC: &v1.GRPCAction{Port: grpcPort, Service: new("ill")}}, want: probe.Failure,
			message: `service unhealthy (responded with "NOT_SERVING")`,
		},
		"exec": {
			reason:  "Variables with valueFrom are empty, as upstream.",
			handler: v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{"test", "$(A)", "$(B)"}}}, want: probe.Success,
		},
		"none": {reason: "A probe without a handler.", want: probe.Unknown},
	}
	runtime := &fakeRuntime{codes: map[string]int32{}}
	a := newProber(Config{Runtime: runtime})
	pod := podWith(v1.Container{
		Ports: []v1.ContainerPort{{Name: "web", ContainerPort: plainPort}},
		Env:   []v1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", ValueFrom: &v1.EnvVarSource{}}},
	})
	to := Target{Container: "main", ContainerID: "containerd://a", PodIP: "127.0.0.1"}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			got := a.probe(t.Context(), pod, to, Readiness, &v1.Probe{ProbeHandler: tc.handler, TimeoutSeconds: 5})
			if got.result != tc.want || !strings.Contains(got.message, tc.message) {
				t.Errorf("%s\ngot %q (%q, %v), want %q with %q", tc.reason, got.result, got.message, got.err, tc.want, tc.message)
			}
		})
	}
	if want := "a test 1 "; len(runtime.calls) != 1 || runtime.calls[0] != want {
		t.Errorf("commands run: %q, want %q", runtime.calls, want)
	}
}
