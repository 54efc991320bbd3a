//go:build linux

package cadvisor

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/cri"
)

// owner of a cgroup. Cgroups above those of Pods have none.
type owner struct {
	// namespace and pod are set for a Pod, its sandbox and its containers; id for sandboxes and
	// containers; container and image for containers.
	namespace, pod, id, container, image string
	created                              time.Time
}

type owners struct {
	pods map[types.UID]owner
	// instances are sandboxes and containers, by ID.
	instances map[string]owner
}

func (o owners) of(g cgroups.Group) owner {
	if g.Name == "" {
		return o.pods[g.Pod]
	}
	return o.instances[idOf(g.Name)]
}

// owners lists the sandboxes and the running containers.
func (s *source) owners(ctx context.Context) (owners, error) {
	sandboxes, err := s.cfg.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return owners{}, fmt.Errorf("listing sandboxes: %w", err)
	}
	running := &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING}
	containers, err := s.cfg.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{
		Filter: &runtimeapi.ContainerFilter{State: running},
	})
	if err != nil {
		return owners{}, fmt.Errorf("listing containers: %w", err)
	}
	out := owners{pods: map[types.UID]owner{}, instances: map[string]owner{}}
	for _, box := range sandboxes.Items {
		meta, created := box.GetMetadata(), time.Unix(0, box.CreatedAt)
		o := owner{namespace: meta.GetNamespace(), pod: meta.GetName(), created: created}
		uid := types.UID(meta.GetUid())
		// The Pod is as old as the first of its sandboxes.
		if known, ok := out.pods[uid]; !ok || created.Before(known.created) {
			out.pods[uid] = o
		}
		o.id = box.Id
		out.instances[box.Id] = o
	}
	for _, c := range containers.Containers {
		o := out.instances[c.PodSandboxId]
		if o.pod == "" {
			continue
		}
		o.id, o.created = c.Id, time.Unix(0, c.CreatedAt)
		o.container = cmp.Or(c.Labels[cri.LabelContainerName], c.GetMetadata().GetName())
		// The image as the Pod names it, or as the runtime stored it.
		o.image = cmp.Or(c.GetImage().GetUserSpecifiedImage(), c.GetImage().GetImage(), c.ImageRef)
		out.instances[c.Id] = o
	}
	return out, nil
}
