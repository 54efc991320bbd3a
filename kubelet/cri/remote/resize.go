package remote

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resize changes the resources of a running container. The next Observe reads them again, since an
// update that failed may have changed some.
func (c *Client) Resize(ctx context.Context, id string, resources *runtimeapi.LinuxContainerResources) error {
	in := &runtimeapi.UpdateContainerResourcesRequest{ContainerId: id, Linux: resources}
	_, err := c.Runtime.UpdateContainerResources(ctx, in)
	c.mu.Lock()
	delete(c.containers, id)
	c.mu.Unlock()
	return err
}

// MemoryUsage returns how much memory a container uses, in bytes.
func (c *Client) MemoryUsage(ctx context.Context, id string) (uint64, error) {
	resp, err := c.Runtime.ContainerStats(ctx, &runtimeapi.ContainerStatsRequest{ContainerId: id})
	if err != nil {
		return 0, err
	}
	usage := resp.GetStats().GetMemory().GetUsageBytes()
	if usage == nil {
		return 0, fmt.Errorf("reading the memory usage of container %s: the runtime does not report it", id)
	}
	return usage.Value, nil
}
