package remote

import (
	"context"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

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
func (c *Client) RequireNetwork(file string) {
	c.Runtime = networked{c.Runtime, file}
}

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
