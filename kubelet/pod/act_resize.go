package pod

import (
	"context"
	"errors"
	"fmt"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
)

// checkMemory fails before anything shrinks, so that no resize is made by half. No event says that
// memory was freed, so the check is repeated.
func (j job) checkMemory(ctx context.Context, a plan.CheckMemory) error {
	var below []error
	usage, limit, lower, err := j.m.cfg.Cgroups.PodMemory(j.pod)
	if err != nil {
		return err
	}
	if lower && usage >= limit {
		below = append(below, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", limit, usage))
	}
	for _, c := range a.Containers {
		usage, err := j.m.cfg.Runtime.MemoryUsage(ctx, c.ID)
		if remote.IsNotFound(err) {
			continue // it has ended, and starts again with what it is allocated
		} else if err != nil {
			return fmt.Errorf("unable to read memory usage for pod %q: %w", j.name(), errors.New(remote.Message(err)))
		}
		if usage >= uint64(c.Limit) {
			below = append(below, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", c.Name, c.Limit, usage))
		}
	}
	if err := utilerrors.NewAggregate(below); err != nil {
		return fmt.Errorf("cannot decrease memory limits: %w", err)
	}
	return nil
}

func (j job) resizeContainer(a plan.ResizeContainer) error {
	spec, _ := cri.FindContainer(j.pod, a.Name) // there is one: a plan resizes what is in the spec
	ctx, cancel := j.call()
	defer cancel()
	err := j.m.cfg.Runtime.Resize(ctx, a.ID, containers.Update(j.m.cfg.Render, j.pod, spec))
	if err != nil && !remote.IsNotFound(err) {
		return fmt.Errorf("resizing container %s: %w", a.Name, errors.New(remote.Message(err)))
	}
	return nil
}
