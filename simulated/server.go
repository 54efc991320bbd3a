package simulated

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/util/cert"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/server"
)

// serverHost is the address of the kubelets of all nodes: one server serves all of them, since the
// API server requests Pods by namespace and name.
const serverHost = "127.0.0.1"

// cannotExecute is a shell's exit code for a command that cannot be executed.
const cannotExecute = 126

// serve starts the server of all nodes, and the server of their streams. Neither authenticates
// clients: a plain envtest has no identity for its API server, and the servers return nothing but
// values of annotations.
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
	cfg := streaming.DefaultConfig
	cfg.Addr, cfg.BaseURL = ends.Addr().String(), &url.URL{Scheme: "http", Host: ends.Addr().String()}
	if s.streams, err = streaming.NewServer(cfg, streams{s}); err != nil {
		_, _ = kubelets.Close(), ends.Close()
		return fmt.Errorf("creating the server of streams: %w", err)
	}
	all.Go(func() error {
		return serveUntil(ctx, tls.NewListener(kubelets, &tls.Config{
			Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		}), s)
	})
	all.Go(func() error { return serveUntil(ctx, ends, s.streams) })
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

// selfSigned returns a certificate that no client verifies.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader) // RSA takes longer
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("generating a key for simulated nodes: %w", err)
	}
	certificate, err := cert.NewSelfSignedCACert(cert.Config{CommonName: serverHost}, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("creating a certificate for simulated nodes: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{certificate.Raw}, PrivateKey: key}, nil
}

// ServeHTTP passes a request for /exec/NAMESPACE/POD/…, say, to the node of the Pod.
func (s *shared) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := append(strings.Split(r.URL.Path, "/"), "", "", "")
	obj, ok, err := s.pods.GetStore().GetByKey(path[2] + "/" + path[3])
	if err == nil && ok {
		if n := s.byName[obj.(*v1.Pod).Spec.NodeName]; n != nil {
			server.Containers(server.Config{Pods: n.Pods, Runtime: reader{n.runtime}}).ServeHTTP(w, r)
			return
		}
	}
	http.Error(w, "pod does not exist", http.StatusNotFound)
}

// reader is the runtime of a node for readers of logs.
type reader struct{ *runtime }

// ContainerStatus writes the log, which the caller is about to read. A removed container has ended,
// for clients that follow its log, and has no log.
func (r reader) ContainerStatus(ctx context.Context, in *runtimeapi.ContainerStatusRequest, _ ...grpc.CallOption) (*runtimeapi.ContainerStatusResponse, error) {
	resp, err := r.runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: in.ContainerId, Verbose: true})
	if status.Code(err) != codes.NotFound {
		return resp, err
	}
	return &runtimeapi.ContainerStatusResponse{Status: &runtimeapi.ContainerStatus{
		Id: in.ContainerId, State: runtimeapi.ContainerState_CONTAINER_EXITED,
	}}, nil
}

func (r *runtime) Exec(_ context.Context, in *runtimeapi.ExecRequest, _ ...grpc.CallOption) (*runtimeapi.ExecResponse, error) {
	return r.streams.GetExec(in)
}

func (r *runtime) Attach(_ context.Context, in *runtimeapi.AttachRequest, _ ...grpc.CallOption) (*runtimeapi.AttachResponse, error) {
	return r.streams.GetAttach(in)
}

func (*runtime) PortForward(context.Context, *runtimeapi.PortForwardRequest, ...grpc.CallOption) (*runtimeapi.PortForwardResponse, error) {
	return nil, status.Error(codes.Unimplemented, "forwarding a port: the Pod is simulated, and nothing listens there")
}

// ExecSync implements CRI, for hooks: they succeed unless an annotation has another exit code.
func (r *runtime) ExecSync(_ context.Context, in *runtimeapi.ExecSyncRequest, _ ...grpc.CallOption) (*runtimeapi.ExecSyncResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.containers[in.ContainerId]
	if c == nil || c.state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, notFound("running container", in.ContainerId)
	}
	out := []byte(ptr.Deref(c.does.exec, ""))
	return &runtimeapi.ExecSyncResponse{ExitCode: c.does.execCode, Stdout: out}, nil
}

// streams is what exec and attach do. It implements streaming.Runtime.
type streams struct{ shared *shared }

// container finds a container of any node, and what it does.
func (s streams) container(id string) (*container, behaviour, error) {
	for _, n := range s.shared.all {
		if c, does, err := n.runtime.container(id); err == nil {
			return c, does, nil
		}
	}
	return nil, behaviour{}, notFound("container", id)
}

// Exec prints the value of the annotation, or why nothing can be executed.
func (s streams) Exec(_ context.Context, id string, cmd []string, _ io.Reader, out, errOut io.WriteCloser, tty bool, _ <-chan remotecommand.TerminalSize) error {
	c, does, err := s.container(id)
	if err != nil {
		return err
	}
	if does.exec == nil {
		to := errOut
		if tty || to == nil {
			to = out
		}
		if to != nil {
			fmt.Fprintf(to, "%s: container %q is simulated and executes nothing; what a command prints can be set with "+
				"the annotation %s on the Pod\n", strings.Join(cmd, " "), c.name(), Prefix+Exec)
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
	return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: int(code)}
}

// Attach prints the log, and returns when the container ends.
func (s streams) Attach(ctx context.Context, id string, _ io.Reader, out, _ io.WriteCloser, _ bool, _ <-chan remotecommand.TerminalSize) error {
	c, does, err := s.container(id)
	if err != nil {
		return err
	}
	if out != nil {
		if _, err := io.WriteString(out, does.log); err != nil {
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
func (streams) PortForward(context.Context, string, int32, io.ReadWriteCloser) error {
	return errors.New("nothing listens in a simulated Pod")
}
