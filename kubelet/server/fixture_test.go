package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// fakeCRI is a runtime with one pod. Its streams are served by the library that
// containerd serves them with.
type fakeCRI struct {
	runtimeapi.RuntimeServiceClient
	streaming.Server

	logPath string

	mu      sync.Mutex
	running bool
}

func (f *fakeCRI) setRunning(running bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running = running
}

func (f *fakeCRI) isRunning() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

func (f *fakeCRI) Exec(_ context.Context, in *runtimeapi.ExecRequest, _ ...grpc.CallOption) (*runtimeapi.ExecResponse, error) {
	return f.GetExec(in)
}

func (f *fakeCRI) Attach(_ context.Context, in *runtimeapi.AttachRequest, _ ...grpc.CallOption) (*runtimeapi.AttachResponse, error) {
	return f.GetAttach(in)
}

func (f *fakeCRI) PortForward(_ context.Context, in *runtimeapi.PortForwardRequest, _ ...grpc.CallOption) (*runtimeapi.PortForwardResponse, error) {
	return f.GetPortForward(in)
}

func (f *fakeCRI) ExecSync(_ context.Context, in *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	return &runtimeapi.ExecSyncResponse{Stdout: fmt.Appendf(nil, "ran %q", in.Cmd)}, nil
}

func (f *fakeCRI) ListPodSandbox(_ context.Context, in *runtimeapi.ListPodSandboxRequest, _ ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	if in.Filter.LabelSelector[cri.LabelPodUID] != "u1" {
		return &runtimeapi.ListPodSandboxResponse{}, nil
	}
	return &runtimeapi.ListPodSandboxResponse{Items: []*runtimeapi.PodSandbox{{Id: "box"}}}, nil
}

func (f *fakeCRI) ListContainers(_ context.Context, in *runtimeapi.ListContainersRequest, _ ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	labels := map[string]string{cri.LabelPodUID: "u1", cri.LabelPodName: "web", cri.LabelPodNamespace: "default", cri.LabelContainerName: "main"}
	for k, v := range in.Filter.LabelSelector {
		if labels[k] != v {
			return &runtimeapi.ListContainersResponse{}, nil
		}
	}
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{{Id: "abc", Labels: labels}}}, nil
}

func (f *fakeCRI) ContainerStatus(_ context.Context, in *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	state := runtimeapi.ContainerState_CONTAINER_EXITED
	if f.isRunning() {
		state = runtimeapi.ContainerState_CONTAINER_RUNNING
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{Id: in.ContainerId, State: state, LogPath: f.logPath}}, nil
}

// program is what runs in the container: it says what it was given.
type program struct{}

func (program) Exec(_ context.Context, id string, cmd []string, in io.Reader, out, errOut io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize) error {
	return program{}.talk(fmt.Sprintf("%s %q tty=%t ", id, cmd, tty), in, out, errOut)
}

func (program) Attach(_ context.Context, id string, in io.Reader, out, errOut io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize) error {
	return program{}.talk(fmt.Sprintf("%s tty=%t ", id, tty), in, out, errOut)
}

func (program) talk(greeting string, in io.Reader, out, errOut io.WriteCloser) error {
	_, _ = io.WriteString(out, greeting)
	if in != nil {
		_, _ = io.Copy(out, in)
	}
	if errOut != nil {
		_, _ = io.WriteString(errOut, "a warning")
	}
	return nil
}

func (program) PortForward(_ context.Context, id string, port int32, stream io.ReadWriteCloser) error {
	defer func() { _ = stream.Close() }()
	line := make([]byte, 5)
	if _, err := io.ReadFull(stream, line); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stream, "%s:%d %s", id, port, line)
	return err
}

type fakePods struct{ pods []*v1.Pod }

func (f fakePods) Pods() []*v1.Pod { return f.pods }
func (f fakePods) Pod(namespace, name string) (*v1.Pod, bool) {
	for _, p := range f.pods {
		if p.Namespace == namespace && p.Name == name {
			return p, true
		}
	}
	return nil, false
}

type fakeStats struct{}

func (fakeStats) Summary(_ context.Context, only bool) (*statsapi.Summary, error) {
	at := metav1.NewTime(time.Unix(1_700_000_000, 0))
	s := &statsapi.Summary{Node: statsapi.NodeStats{
		NodeName: "n1", CPU: &statsapi.CPUStats{Time: at, UsageCoreNanoSeconds: ptr.To[uint64](3e9)},
		Memory: &statsapi.MemoryStats{Time: at, WorkingSetBytes: ptr.To[uint64](5)},
		Swap:   &statsapi.SwapStats{Time: at, SwapUsageBytes: ptr.To[uint64](6), SwapAvailableBytes: ptr.To[uint64](7)},
	}}
	if !only {
		s.Node.Fs = &statsapi.FsStats{}
	}
	s.Pods = []statsapi.PodStats{{
		PodRef: statsapi.PodReference{Name: "web", Namespace: "default"}, CPU: s.Node.CPU, Memory: s.Node.Memory,
		Containers: []statsapi.ContainerStats{{Name: "main", StartTime: at, CPU: s.Node.CPU, Memory: s.Node.Memory, Swap: s.Node.Swap}},
	}}
	return s, nil
}

func webPod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1"},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "main"}, {Name: "terminal", TTY: true}}},
		Status: v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{
			Name: "main", ContainerID: "containerd://abc", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}},
		}}},
	}
}

// fixture is a Server on loopback, and what it talks to.
type fixture struct {
	*testing.T
	cri    *fakeCRI
	server *Server
	url    string
	ca     *certificateAuthority
	// allowed lists what users may do, as "user verb subresource".
	allowed map[string]bool
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{T: t, ca: newCA(t), allowed: map[string]bool{"root get proxy": true, "root create proxy": true}}
	f.cri = &fakeCRI{running: true, logPath: filepath.Join(t.TempDir(), "0.log")}
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f.cri.ServeHTTP(w, r) }))
	t.Cleanup(backend.Close)
	config := streaming.DefaultConfig
	config.Addr = backend.Listener.Addr().String()
	server, err := streaming.NewServer(config, program{})
	if err != nil {
		t.Fatal(err)
	}
	f.cri.Server = server

	hostLogs := t.TempDir()
	for name, text := range map[string]string{"messages": "booted\n", "../outside": "secret\n"} {
		if err := os.WriteFile(filepath.Join(hostLogs, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../outside", filepath.Join(hostLogs, "link")); err != nil {
		t.Fatal(err)
	}
	own := prometheus.NewRegistry()
	own.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "of_this_agent", Help: "A metric that is not the whole process's."}))
	cadvisor := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "container_last_seen 1\n") })
	f.server, err = New(Config{
		Metrics: own, Cadvisor: cadvisor, ProbeMetrics: http.NotFoundHandler(), Healthy: func() error { return nil },
		NodeName: "n1", Client: f.api(), Pods: fakePods{[]*v1.Pod{webPod()}}, Runtime: f.cri, Stats: fakeStats{},
		GetCertificate: always(f.ca.issue(t, "n1")), ClientCA: f.ca.pool, HostLogDir: hostLogs,
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.url = "https://" + l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return f
}

// api is an API server that answers reviews and nothing else: the token of a user
// is his name.
func (f *fixture) api() kubernetes.Interface {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /apis/authentication.k8s.io/v1/tokenreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authenticationv1.TokenReview
		answer(w, r, &review, func() {
			review.Status.Authenticated = review.Spec.Token != "forged"
			review.Status.User.Username = review.Spec.Token
		})
	})
	mux.HandleFunc("POST /apis/authorization.k8s.io/v1/subjectaccessreviews", func(w http.ResponseWriter, r *http.Request) {
		var review authorizationv1.SubjectAccessReview
		answer(w, r, &review, func() {
			attrs := review.Spec.ResourceAttributes
			review.Status.Allowed = attrs.Resource == "nodes" && attrs.Name == "n1" &&
				f.allowed[review.Spec.User+" "+attrs.Verb+" "+attrs.Subresource]
		})
	})
	api := httptest.NewServer(mux)
	f.Cleanup(api.Close)
	return kubernetes.NewForConfigOrDie(&rest.Config{Host: api.URL})
}

func answer(w http.ResponseWriter, r *http.Request, review any, decide func()) {
	if err := json.NewDecoder(r.Body).Decode(review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	decide()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review) //nolint:errchkjson // reviews are plain structs
}

// config connects to the server with a user's token.
func (f *fixture) config(user string) *rest.Config {
	return &rest.Config{Host: f.url, BearerToken: user, TLSClientConfig: rest.TLSClientConfig{CAData: f.ca.pem}}
}

// get returns the code and the body of an answer.
func (f *fixture) do(user, method, path string) (int, string) {
	f.Helper()
	client, err := rest.HTTPClientFor(f.config(user))
	if err != nil {
		f.Fatal(err)
	}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(f.Context(), method, f.url+path, nil)
	if err != nil {
		f.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		f.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// certificateAuthority signs certificates for both ends.
type certificateAuthority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	pem  []byte
}

func newCA(t *testing.T) *certificateAuthority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &certificateAuthority{cert, key, pool, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *certificateAuthority) issue(t *testing.T, name string, groups ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name, Organization: groups}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// always is a certificate that is never renewed.
func always(cert tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
}
