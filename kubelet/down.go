//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri"
)

// downGrace is what containers get between SIGTERM and SIGKILL when the whole
// node goes down, whatever their Pods say.
const downGrace = 10 * time.Second

// StopPods stops and removes every sandbox of a runtime and all containers in
// them, all at once, and returns when nothing is left. It returns the UIDs of all
// Pods that the runtime knew, also of those that had ended: their logs are still
// there. The node agent must not run: it would start them again.
func StopPods(ctx context.Context, criEndpoint string) ([]string, error) {
	rt, err := cri.Dial(criEndpoint)
	if err != nil {
		return nil, err
	}
	defer rt.Close()
	sandboxes, err := rt.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing sandboxes: %w", err)
	}
	containers, err := rt.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing containers: %w", err)
	}
	inSandbox := map[string][]string{}
	for _, c := range containers.Containers {
		if c.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			inSandbox[c.PodSandboxId] = append(inSandbox[c.PodSandboxId], c.Id)
		}
	}
	uids := make([]string, len(sandboxes.Items))
	failures := make([]error, len(sandboxes.Items))
	var all sync.WaitGroup
	for i, s := range sandboxes.Items {
		uids[i] = s.GetMetadata().GetUid()
		all.Go(func() { failures[i] = stopPod(ctx, rt.Runtime, s, inSandbox[s.Id]) })
	}
	all.Wait()
	return uids, errors.Join(failures...)
}

func stopPod(ctx context.Context, rt runtimeapi.RuntimeServiceClient, s *runtimeapi.PodSandbox, containers []string) error {
	var all sync.WaitGroup
	for _, id := range containers {
		// What does not stop by itself is killed with the sandbox.
		all.Go(func() {
			_, _ = rt.StopContainer(ctx, &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: int64(downGrace / time.Second)})
		})
	}
	all.Wait()
	if _, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id}); err != nil && !cri.IsNotFound(err) {
		return fmt.Errorf("stopping Pod %s/%s: %w", s.GetMetadata().GetNamespace(), s.GetMetadata().GetName(), err)
	}
	if _, err := rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id}); err != nil && !cri.IsNotFound(err) {
		return fmt.Errorf("removing Pod %s/%s: %w", s.GetMetadata().GetNamespace(), s.GetMetadata().GetName(), err)
	}
	return nil
}
