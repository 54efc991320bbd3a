package remote

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

type statusService struct {
	runtimeapi.RuntimeServiceClient
	network bool
}

func (s statusService) Status(context.Context, *runtimeapi.StatusRequest, ...grpc.CallOption) (*runtimeapi.StatusResponse, error) {
	can := &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: true}
	return &runtimeapi.StatusResponse{
		Status: &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{
			{Type: runtimeapi.RuntimeReady, Status: true},
			{Type: runtimeapi.NetworkReady, Status: s.network, Reason: "NetworkPluginNotReady", Message: "cni plugin not initialized"},
		}},
		RuntimeHandlers: []*runtimeapi.RuntimeHandler{{Features: can}, {Name: "runc", Features: can}, {Name: "gvisor"}},
	}, nil
}

func TestStatus(t *testing.T) {
	handlers, err := New(statusService{}, nil).RecursiveReadOnly(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sets.New("", "runc"), handlers); diff != "" {
		t.Errorf("RecursiveReadOnly() -want +got:\n%s", diff)
	}
	if err := New(statusService{network: true}, nil).NetworkError(t.Context()); err != nil {
		t.Errorf("NetworkError() = %v of a network that is ready", err)
	}
	err = New(statusService{}, nil).NetworkError(t.Context())
	want := "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady message:cni plugin not initialized"
	if err == nil || err.Error() != want {
		t.Errorf("NetworkError() = %v, want %s", err, want)
	}
}

// TestRequireNetwork: the network of another configuration does not count.
func TestRequireNetwork(t *testing.T) {
	file := filepath.Join(t.TempDir(), "00-flyball.conflist")
	c := New(statusService{network: true}, nil)
	c.RequireNetwork(file)
	if err := c.NetworkError(t.Context()); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("without the configuration: %v, want an error that names it", err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := c.NetworkError(t.Context()); err != nil {
		t.Errorf("with the configuration: %v", err)
	}
}
