package remote

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// maxMessage bounds one answer of the runtime, in bytes. A node full of Pods fits.
const maxMessage = 16 << 20

// callTimeout bounds a call of the runtime whose caller has set no deadline, as upstream's
// runtimeRequestTimeout does: a runtime that hangs must not block a Pod's worker for ever.
const callTimeout = 2 * time.Minute

// bounded gives a deadline to calls without one.
func bounded(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(
		ctx context.Context, method string, req, reply any, conn *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption,
	) error {
		_, has := ctx.Deadline()
		if wait, ends := waits(req); ends && !has {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout+wait)
			defer cancel()
		}
		return invoke(ctx, method, req, reply, conn, opts...)
	}
}

// waits returns how long the runtime itself waits in a call, and whether that is bounded. It is not
// for a pull, whose image may be large, for a command without a timeout, and for the first call,
// which waits until the runtime is up.
func waits(req any) (time.Duration, bool) {
	switch r := req.(type) {
	case *runtimeapi.PullImageRequest, *runtimeapi.VersionRequest:
		return 0, false
	case *runtimeapi.ExecSyncRequest:
		return time.Duration(r.Timeout) * time.Second, r.Timeout > 0
	case *runtimeapi.StopContainerRequest:
		return time.Duration(r.Timeout) * time.Second, true
	}
	return 0, true
}

// Client is a connection to a runtime.
type Client struct {
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient
	// Owned are the labels of our sandboxes and containers in a runtime that others use too: Watch,
	// Relist and the metrics omit all others, except those of Pods that were observed. All are ours
	// if it is empty. It does not change once the Client is in use.
	Owned map[string]string

	conn    *grpc.ClientConn
	metrics *metrics

	mu       sync.Mutex
	observed map[types.UID]cri.Pod  // the last observations that found something
	seen     map[types.UID][]string // the facts of the last relist
	listed   time.Time              // when the last relist succeeded
}

// Dial returns a Client for an endpoint such as unix:///run/containerd/containerd.sock. It does not
// wait for the runtime: calls connect, and reconnect.
func Dial(endpoint string) (*Client, error) {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok && !strings.HasPrefix(endpoint, "/") {
		return nil, fmt.Errorf("connecting to the container runtime: endpoint %q is not a unix:// address", endpoint)
	}
	m := newMetrics()
	conn, err := grpc.NewClient("unix:"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithChainUnaryInterceptor(m.observe, bounded(callTimeout)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connecting to the container runtime at %s: %w", endpoint, err)
	}
	c := New(runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn))
	c.conn, c.metrics = conn, m
	return c, nil
}

// New returns a Client on connected services.
func New(rt runtimeapi.RuntimeServiceClient, images runtimeapi.ImageServiceClient) *Client {
	return &Client{
		Runtime: rt, Images: images, metrics: newMetrics(),
		observed: map[types.UID]cri.Pod{}, seen: map[types.UID][]string{}, listed: time.Now(),
	}
}

// Close ends the connection.
func (c *Client) Close() error {
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

// Wait returns once the runtime answers, with its name and version.
func (c *Client) Wait(ctx context.Context) (*runtimeapi.VersionResponse, error) {
	v, err := c.Runtime.Version(ctx, &runtimeapi.VersionRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return nil, fmt.Errorf("waiting for the container runtime: %w", err)
	}
	return v, nil
}

// relistThreshold is the age of the last successful relist from which on the runtime is unhealthy,
// as upstream.
const relistThreshold = 3 * time.Minute

// Healthy returns an error if no relist has succeeded for relistThreshold.
func (c *Client) Healthy() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if since := time.Since(c.listed); since > relistThreshold {
		return fmt.Errorf("listing the container runtime's Pods: it has not answered for %s; see its log",
			since.Truncate(time.Second))
	}
	return nil
}

// IsNotFound reports whether the runtime does not have the object of a call.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// IsHung reports whether the runtime did not answer in time.
func IsHung(err error) bool { return status.Code(err) == codes.DeadlineExceeded }

// Message is the text of an error of the runtime, without the prefix of gRPC.
func Message(err error) string { return status.Convert(err).Message() }

// NetworkError is why the runtime cannot connect Pods to the network, with upstream's text; nil if
// it can, or does not answer.
func (c *Client) NetworkError(ctx context.Context) error {
	resp, err := c.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil //nolint:nilerr // Healthy reports that
	}
	for _, condition := range resp.GetStatus().GetConditions() {
		if condition.Type == runtimeapi.NetworkReady && !condition.Status {
			return fmt.Errorf("container runtime network not ready: NetworkReady=false reason:%s message:%s",
				condition.Reason, condition.Message)
		}
	}
	return nil
}

// RequireNetwork makes the runtime's status report that the network is not ready until file, the
// CNI configuration of the node network, exists. A runtime that is not ours may be ready with
// another configuration: Pods would get addresses of another network. Call it before the Client is
// in use.
func (c *Client) RequireNetwork(file string) { c.Runtime = networked{c.Runtime, file} }

type networked struct {
	runtimeapi.RuntimeServiceClient
	file string
}

// Status implements CRI.
func (n networked) Status(
	ctx context.Context, in *runtimeapi.StatusRequest, opts ...grpc.CallOption,
) (*runtimeapi.StatusResponse, error) {
	resp, err := n.RuntimeServiceClient.Status(ctx, in, opts...)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(n.file); err == nil {
		return resp, nil
	}
	for _, condition := range resp.GetStatus().GetConditions() {
		if condition.Type == runtimeapi.NetworkReady && condition.Status {
			condition.Status, condition.Reason = false, "NetworkPluginNotReady"
			condition.Message = "the CNI configuration " + n.file + " is not written yet"
		}
	}
	return resp, nil
}

// RecursiveReadOnly returns the runtime handlers that can make mounts recursively read-only; "" is
// the default one.
func (c *Client) RecursiveReadOnly(ctx context.Context) (sets.Set[string], error) {
	resp, err := c.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("reading the features of the container runtime: %w", err)
	}
	able := sets.New[string]()
	for _, h := range resp.GetRuntimeHandlers() {
		if h.GetFeatures().GetRecursiveReadOnlyMounts() {
			able.Insert(h.GetName())
		}
	}
	return able, nil
}
