package cri

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxMessage bounds one answer of the runtime, in bytes; a node full of Pods fits easily.
const maxMessage = 16 << 20

// Client is a connection to a runtime.
type Client struct {
	// Runtime and Images are the services of the runtime.
	Runtime runtimeapi.RuntimeServiceClient
	Images  runtimeapi.ImageServiceClient

	conn *grpc.ClientConn

	mu sync.Mutex
	// details of containers and addresses of sandboxes by ID, see Observe.
	containers map[string]Container
	sandboxes  map[string]Sandbox
	// known are the IDs in both, by Pod.
	known map[types.UID][]string
	// seen is what the last relist found, by Pod.
	seen map[types.UID]string
}

// Dial returns a Client for an endpoint such as
// unix:///run/containerd/containerd.sock. It does not wait for the runtime: the
// connection is made, and remade, when it is used.
func Dial(endpoint string) (*Client, error) {
	path, ok := strings.CutPrefix(endpoint, "unix://")
	if !ok && !strings.HasPrefix(endpoint, "/") {
		return nil, fmt.Errorf("connecting to the container runtime: endpoint %q is not a unix:// address", endpoint)
	}
	conn, err := grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", addr)
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, fmt.Errorf("connecting to the container runtime at %s: %w", endpoint, err)
	}
	c := New(runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn))
	c.conn = conn
	return c, nil
}

// New returns a Client on services that are connected already.
func New(rt runtimeapi.RuntimeServiceClient, images runtimeapi.ImageServiceClient) *Client {
	return &Client{
		Runtime: rt, Images: images,
		containers: map[string]Container{}, sandboxes: map[string]Sandbox{},
		known: map[types.UID][]string{}, seen: map[types.UID]string{},
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

// IsNotFound says whether the runtime does not know what was asked for.
func IsNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// Message is the text of an error of the runtime without gRPC's frame.
func Message(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
