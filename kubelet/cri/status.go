package cri

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// NetworkError says why the runtime cannot connect Pods to the network now, in
// upstream's words; nil if it can, or does not answer.
func (c *Client) NetworkError(ctx context.Context) error {
	resp, err := c.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil //nolint:nilerr // that is another trouble, of which others tell
	}
	for _, condition := range resp.GetStatus().GetConditions() {
		if condition.Type == runtimeapi.NetworkReady && !condition.Status {
			return fmt.Errorf("container runtime network not ready: NetworkReady=false reason:%s message:%s", condition.Reason, condition.Message)
		}
	}
	return nil
}

// RecursiveReadOnly returns the runtime handlers that can make mounts recursively
// read-only. The default handler is named "".
func (c *Client) RecursiveReadOnly(ctx context.Context) (sets.Set[string], error) {
	resp, err := c.Runtime.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return nil, fmt.Errorf("asking the container runtime what it can do: %w", err)
	}
	able := sets.New[string]()
	for _, h := range resp.GetRuntimeHandlers() {
		if h.GetFeatures().GetRecursiveReadOnlyMounts() {
			able.Insert(h.GetName())
		}
	}
	return able, nil
}
