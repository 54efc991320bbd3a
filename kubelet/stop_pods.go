//go:build linux

package kubelet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cri/remote"
)

// stopGracePeriod is the time of containers between SIGTERM and SIGKILL when the whole node is
// stopped, instead of their Pods' own.
const stopGracePeriod = 10 * time.Second

// StopPods stops and removes every sandbox of the node agent and all containers in them, in
// parallel, and returns when none is left. It returns the UIDs of all of the agent's Pods that the
// runtime knew, also of those that had ended: their logs are still there. The node agent must not
// run: it would start them again.
//
// It uses CRIEndpoint, SharedRuntime and Owner of cfg. In a shared runtime the Pods with the UIDs
// in known are the agent's too, even without its label.
func StopPods(ctx context.Context, cfg Config, known []string) ([]string, error) {
	rt, err := remote.Dial(cfg.CRIEndpoint)
	if err != nil {
		return nil, err
	}
	defer rt.Close()
	return stopPods(ctx, rt.Runtime, cfg.owned(), sets.New(known...))
}

func stopPods(
	ctx context.Context, rt runtimeapi.RuntimeServiceClient, owned map[string]string, known sets.Set[string],
) ([]string, error) {
	sandboxes, containers, err := remote.List(ctx, rt, nil)
	if err != nil {
		return nil, err
	}
	inSandbox := map[string][]string{}
	for _, c := range containers {
		if c.State != runtimeapi.ContainerState_CONTAINER_EXITED {
			inSandbox[c.PodSandboxId] = append(inSandbox[c.PodSandboxId], c.Id)
		}
	}
	selector := labels.SelectorFromSet(owned)
	ours := slices.DeleteFunc(sandboxes, func(s *runtimeapi.PodSandbox) bool {
		return !selector.Matches(labels.Set(s.Labels)) && !known.Has(s.GetMetadata().GetUid())
	})
	uids, failures := make([]string, len(ours)), make([]error, len(ours))
	var all sync.WaitGroup
	for i, s := range ours {
		uids[i] = s.GetMetadata().GetUid()
		all.Go(func() { failures[i] = stopPod(ctx, rt, s, inSandbox[s.Id]) })
	}
	all.Wait()
	return uids, errors.Join(failures...)
}

func stopPod(
	ctx context.Context, rt runtimeapi.RuntimeServiceClient, s *runtimeapi.PodSandbox, containers []string,
) error {
	var all sync.WaitGroup
	for _, id := range containers {
		// Stopping the sandbox kills a container that does not stop.
		all.Go(func() {
			_, _ = rt.StopContainer(ctx, &runtimeapi.StopContainerRequest{
				ContainerId: id, Timeout: int64(stopGracePeriod / time.Second),
			})
		})
	}
	all.Wait()
	doing := "stopping"
	_, err := rt.StopPodSandbox(ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: s.Id})
	if err == nil || remote.IsNotFound(err) {
		doing = "removing"
		_, err = rt.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{PodSandboxId: s.Id})
	}
	if err != nil && !remote.IsNotFound(err) {
		return fmt.Errorf("%s Pod %s/%s: %w", doing, s.GetMetadata().GetNamespace(), s.GetMetadata().GetName(), err)
	}
	return nil
}
