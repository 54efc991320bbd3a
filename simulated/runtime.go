package simulated

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// runtimeName is what the Node and the IDs of containers say: simulated://….
const runtimeName = "simulated"

// runtime is a container runtime that runs nothing. It implements CRI's
// RuntimeService as far as the node agent uses it.
type runtime struct {
	runtimeapi.RuntimeServiceClient // answers Unimplemented

	// pod returns the Pod as it is now, nil if it is not known.
	pod func(namespace, name string) *v1.Pod
	// podCIDRs returns the ranges of the node: one or two, none if it has not got them yet.
	podCIDRs func() []netip.Prefix
	// common is the range of all nodes without ranges of their own.
	common *addresses
	// logs are where logs lie that somebody asked for.
	logs *logFiles

	mu         sync.Mutex
	own        []*addresses // of podCIDRs
	sandboxes  map[string]*sandbox
	containers map[string]*container
	listeners  map[*eventStream]bool
}

func newRuntime() *runtime {
	return &runtime{
		RuntimeServiceClient: runtimeapi.NewRuntimeServiceClient(nobody{}),
		sandboxes:            map[string]*sandbox{}, containers: map[string]*container{}, listeners: map[*eventStream]bool{},
	}
}

// nobody is a connection to no runtime.
type nobody struct{}

func (nobody) Invoke(_ context.Context, method string, _, _ any, _ ...grpc.CallOption) error {
	return status.Errorf(codes.Unimplemented, "a simulated runtime does not know %s", method)
}

func (nobody) NewStream(_ context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	return nil, status.Errorf(codes.Unimplemented, "a simulated runtime does not know %s", method)
}

func notFound(kind, id string) error {
	return status.Errorf(codes.NotFound, "there is no %s %s", kind, id)
}

// newID is of the length that every runtime has.
func newID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Version implements CRI.
func (*runtime) Version(context.Context, *runtimeapi.VersionRequest, ...grpc.CallOption) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{Version: "0.1.0", RuntimeName: runtimeName, RuntimeVersion: "1", RuntimeApiVersion: "v1"}, nil
}

// Status implements CRI.
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

// selected says whether labels are all that a filter asks for.
func selected(labels, selector map[string]string) bool {
	for name, value := range selector {
		if labels[name] != value {
			return false
		}
	}
	return true
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// stop ends what would still happen by itself.
func (r *runtime) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.containers {
		c.timer.Stop()
	}
}
