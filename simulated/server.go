package simulated

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"flyball.dev/kubelet/server"
)

// serverHost is the address of the kubelets of all nodes: one server serves all of
// them, since the API server requests Pods by namespace and name.
const serverHost = "127.0.0.1"

// cannotExecute is a shell's exit code for a command that cannot be executed.
const cannotExecute = 126

// serve starts the server of all nodes, and the server of their streams. Neither
// authenticates clients: a plain envtest has no identity for its API server, and the
// servers return nothing but values of annotations.
func (s *shared) serve(ctx context.Context, all *errgroup.Group) error {
	certificate, err := selfSigned()
	if err != nil {
		return err
	}
	var listen net.ListenConfig
	kubelets, err := listen.Listen(ctx, "tcp", net.JoinHostPort(serverHost, "0"))
	if err != nil {
		return fmt.Errorf("opening a port for the logs of simulated nodes: %w", err)
	}
	ends, err := listen.Listen(ctx, "tcp", net.JoinHostPort(serverHost, "0"))
	if err != nil {
		_ = kubelets.Close()
		return fmt.Errorf("opening a port for the streams of simulated nodes: %w", err)
	}
	s.port = kubelets.Addr().(*net.TCPAddr).Port //nolint:forcetypeassert // a TCP listener
	s.streams, err = newStreams(s, ends.Addr().String())
	if err != nil {
		_ = kubelets.Close()
		_ = ends.Close()
		return err
	}
	handler := server.Containers(server.Config{Pods: allPods{s}, Runtime: router{shared: s}})
	all.Go(func() error {
		return serveUntil(ctx, tls.NewListener(kubelets, &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		}), handler)
	})
	all.Go(func() error { return serveUntil(ctx, ends, s.streams.server) })
	return nil
}

func serveUntil(ctx context.Context, l net.Listener, handler http.Handler) error {
	srv := &http.Server{
		Handler: handler, BaseContext: func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: 30 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving the logs of simulated nodes: %w", err)
	case <-ctx.Done():
	}
	_ = srv.Close()
	<-done //nolint:errcheck // it is http.ErrServerClosed
	return nil
}

// selfSigned returns a certificate that no client verifies. client-go's helper would generate RSA
// keys, which takes longer.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("generating a key for simulated nodes: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0),
		IPAddresses: []net.IP{net.ParseIP(serverHost)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("creating a certificate for simulated nodes: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}, nil
}

// allPods are the Pods of all nodes, with the status that their workers have.
type allPods struct{ shared *shared }

func (a allPods) Pods() []*v1.Pod { return nil } // not served

func (a allPods) Pod(namespace, name string) (*v1.Pod, bool) {
	obj, ok, err := a.shared.pods.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	n := a.shared.byName[obj.(*v1.Pod).Spec.NodeName] //nolint:forcetypeassert // an informer of Pods
	if n == nil {
		return nil, false
	}
	return n.Pods.Pod(namespace, name)
}

// router calls the runtime of the node that has a container or sandbox.
type router struct {
	shared *shared
}

func (r router) nodes(do func(*runtime) bool) {
	for _, n := range r.shared.all {
		if do(n.runtime) {
			return
		}
	}
}

// ContainerStatus implements server.Runtime. The caller is about to read the log. A
// removed container has ended, for clients that follow its log, and has no log.
func (r router) ContainerStatus(ctx context.Context, in *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	resp := &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
		Id: in.ContainerId, State: runtimeapi.ContainerState_CONTAINER_EXITED,
	}}
	var err error
	r.nodes(func(rt *runtime) bool {
		if _, unknown := rt.container(in.ContainerId); unknown != nil {
			return false
		}
		resp, err = rt.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: in.ContainerId, Verbose: true})
		return true
	})
	return resp, err
}

// ListContainers implements server.Runtime.
func (r router) ListContainers(ctx context.Context, in *runtimeapi.ListContainersRequest, opts ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	list := &runtimeapi.ListContainersResponse{}
	r.nodes(func(rt *runtime) bool {
		some, err := rt.ListContainers(ctx, in, opts...)
		list.Containers = append(list.Containers, some.GetContainers()...)
		return err != nil
	})
	return list, nil
}

// ListPodSandbox implements server.Runtime.
func (r router) ListPodSandbox(ctx context.Context, in *runtimeapi.ListPodSandboxRequest, opts ...grpc.CallOption) (*runtimeapi.ListPodSandboxResponse, error) {
	list := &runtimeapi.ListPodSandboxResponse{}
	r.nodes(func(rt *runtime) bool {
		some, err := rt.ListPodSandbox(ctx, in, opts...)
		list.Items = append(list.Items, some.GetItems()...)
		return err != nil
	})
	return list, nil
}

// ExecSync implements server.Runtime.
func (r router) ExecSync(ctx context.Context, in *runtimeapi.ExecSyncRequest, opts ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	resp, err := (*runtimeapi.ExecSyncResponse)(nil), notFound("container", in.ContainerId)
	r.nodes(func(rt *runtime) bool {
		if _, unknown := rt.container(in.ContainerId); unknown != nil {
			return false
		}
		resp, err = rt.ExecSync(ctx, in, opts...)
		return true
	})
	return resp, err
}

// Exec implements server.Runtime.
func (r router) Exec(_ context.Context, in *runtimeapi.ExecRequest, _ ...grpc.CallOption) (*runtimeapi.ExecResponse, error) {
	return r.shared.streams.server.GetExec(in)
}

// Attach implements server.Runtime.
func (r router) Attach(_ context.Context, in *runtimeapi.AttachRequest, _ ...grpc.CallOption) (*runtimeapi.AttachResponse, error) {
	return r.shared.streams.server.GetAttach(in)
}

// PortForward implements server.Runtime.
func (r router) PortForward(context.Context, *runtimeapi.PortForwardRequest, ...grpc.CallOption) (*runtimeapi.PortForwardResponse, error) {
	return nil, status.Error(codes.Unimplemented, "forwarding a port: the Pod is simulated, and nothing listens there")
}

func (r router) container(id string) (rt *runtime, c *container) {
	r.nodes(func(candidate *runtime) bool {
		found, err := candidate.container(id)
		rt, c = candidate, found
		return err == nil
	})
	return rt, c
}

// ExecSync implements CRI. It runs exec hooks, which succeed unless an annotation has
// another exit code.
func (r *runtime) ExecSync(_ context.Context, in *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[in.ContainerId]
	if c == nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, notFound("running container", in.ContainerId)
	}
	resp := &runtimeapi.ExecSyncResponse{ExitCode: c.does.execCode}
	if c.does.exec != nil {
		resp.Stdout = []byte(*c.does.exec)
	}
	return resp, nil
}

// streams serves exec and attach. It implements streaming.Runtime.
type streams struct {
	router router
	server streaming.Server
}

func newStreams(s *shared, address string) (*streams, error) {
	st := &streams{router: router{s}}
	cfg := streaming.DefaultConfig
	cfg.Addr, cfg.BaseURL = address, &url.URL{Scheme: "http", Host: address}
	var err error
	if st.server, err = streaming.NewServer(cfg, st); err != nil {
		return nil, fmt.Errorf("creating the server of streams: %w", err)
	}
	return st, nil
}

// Exec prints the value of the annotation, or why nothing can be executed.
func (s *streams) Exec(_ context.Context, id string, cmd []string, _ io.Reader, out, errOut io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize) error {
	rt, c := s.router.container(id)
	if c == nil {
		return notFound("container", id)
	}
	rt.mu.Lock()
	does, name := c.does, c.name()
	rt.mu.Unlock()
	if does.exec == nil {
		to := errOut
		if tty || to == nil {
			to = out
		}
		if to != nil {
			fmt.Fprintf(to, "%s: container %q is simulated and executes nothing; what a command prints can be set with the annotation %s on the Pod\n",
				strings.Join(cmd, " "), name, Prefix+Exec)
		}
		return exitError(cannotExecute)
	}
	if out != nil {
		if _, err := io.WriteString(out, *does.exec); err != nil {
			return err
		}
	}
	if does.execCode != 0 {
		return exitError(does.execCode)
	}
	return nil
}

func exitError(code int32) error {
	return utilexec.CodeExitError{Err: errors.New("command terminated with exit code " + strconv.Itoa(int(code))), Code: int(code)}
}

// Attach prints the log, and returns when the container ends.
func (s *streams) Attach(ctx context.Context, id string, _ io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	rt, c := s.router.container(id)
	if c == nil {
		return notFound("container", id)
	}
	rt.mu.Lock()
	text := c.does.log
	rt.mu.Unlock()
	if out != nil {
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
	}
	return nil
}

// PortForward implements streaming.Runtime. It is never called.
func (*streams) PortForward(context.Context, string, int32, io.ReadWriteCloser) error {
	return errors.New("nothing listens in a simulated Pod")
}
