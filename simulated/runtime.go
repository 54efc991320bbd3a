package simulated

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
)

// runtimeName is in the Node's status and in the IDs of containers: simulated://….
const runtimeName = "simulated"

// runtime is a container runtime without processes. It implements the methods of CRI's
// RuntimeService that the node agent uses.
type runtime struct {
	runtimeapi.RuntimeServiceClient // answers Unimplemented

	pods    *podSource
	node    *nodeSource
	common  *addresses       // for nodes without a range
	logDir  string           // of all nodes; it is made with the first log
	streams streaming.Server // of all nodes

	mu         sync.Mutex
	own        []*addresses // of the node's podCIDRs
	sandboxes  map[string]*sandbox
	containers map[string]*container
	listeners  map[*eventStream]bool
}

func newRuntime(
	pods *podSource, node *nodeSource, common *addresses, logDir string, streams streaming.Server,
) *runtime {
	return &runtime{
		RuntimeServiceClient: runtimeapi.NewRuntimeServiceClient(unimplemented{}),
		pods:                 pods, node: node, common: common, logDir: logDir, streams: streams,
		sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, listeners: map[*eventStream]bool{},
	}
}

// unimplemented is a connection that answers Unimplemented.
type unimplemented struct{}

func (unimplemented) Invoke(_ context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	return status.Errorf(codes.Unimplemented, "a simulated runtime does not implement %s", method)
}

func (unimplemented) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "a simulated runtime does not implement %s", method)
}

func notFound(kind, id string) error {
	return status.Errorf(codes.NotFound, "there is no %s %s", kind, id)
}

// newID returns an ID of the length that all runtimes use.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (*runtime) Version(context.Context, *runtimeapi.VersionRequest, ...grpc.CallOption) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: runtimeName, RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

func (*runtime) Status(context.Context, *runtimeapi.StatusRequest, ...grpc.CallOption) (*runtimeapi.StatusResponse, error) {
	return &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true}, {Type: runtimeapi.NetworkReady, Status: true},
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{
			Features: &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true, UserNamespaces: true},
		}},
		Features: &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func (r *runtime) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		c.timer.Stop()
	}
}
