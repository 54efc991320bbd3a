package pod

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
)

func (j job) growCgroup(a plan.GrowCgroup) (func(*worker), error) {
	if err := j.m.cfg.Cgroups.GrowPod(j.pod); err != nil {
		return nil, err
	}
	return func(w *worker) { w.state.Grown = a.Generation }, nil
}

func (j job) shrinkCgroup(a plan.ShrinkCgroup) (func(*worker), error) {
	if _, err := j.m.cfg.Cgroups.EnsurePod(j.pod); err != nil {
		return nil, err
	}
	return func(w *worker) { w.state.Sized = a.Generation }, nil
}

// checkMemory looks before anything shrinks, so that a resize that cannot be made
// is not made by half. Memory has no event for its being freed: it is tried again.
func (j job) checkMemory(ctx context.Context, a plan.CheckMemory) (func(*worker), error) {
	var below []string
	usage, limit, lower, err := j.m.cfg.Cgroups.PodMemory(j.pod)
	if err != nil {
		return nil, err
	}
	if lower && usage >= limit {
		below = append(below, fmt.Sprintf("attempting to set pod memory limit (%d) below current usage (%d)", limit, usage))
	}
	for _, c := range a.Containers {
		usage, err := j.m.cfg.Resizer.MemoryUsage(ctx, c.ID)
		if remote.IsNotFound(err) {
			continue // it has ended, and starts again with what it is allocated
		} else if err != nil {
			return nil, fmt.Errorf("unable to read memory usage for pod %q: %w", j.name(), errors.New(remote.Message(err)))
		}
		if usage >= uint64(c.Limit) {
			below = append(below, fmt.Sprintf("attempting to set container %q memory limit (%d) below current usage (%d)", c.Name, c.Limit, usage))
		}
	}
	switch len(below) {
	case 0:
		return func(w *worker) { w.state.Checked = a.Generation }, nil
	case 1:
		return nil, fmt.Errorf("cannot decrease memory limits: %s", below[0])
	default:
		return nil, fmt.Errorf("cannot decrease memory limits: [%s]", strings.Join(below, ", "))
	}
}

// resizeContainer makes the call. What was given is remembered: a runtime need not
// report exactly that.
func (j job) resizeContainer(a plan.ResizeContainer) (func(*worker), error) {
	spec := plan.SpecOf(j.pod, a.Name)
	if spec == nil {
		return nil, fmt.Errorf("resizing container %s: the Pod has none of this name", a.Name)
	}
	ctx, cancel := j.call()
	defer cancel()
	err := j.m.cfg.Resizer.Resize(ctx, a.ID, containers.Update(j.m.cfg.Render, j.pod, spec))
	if err != nil && !remote.IsNotFound(err) {
		return nil, fmt.Errorf("resizing container %s: %w", a.Name, errors.New(remote.Message(err)))
	}
	return func(w *worker) { w.state.Given[a.ID] = a.Resources }, nil
}
