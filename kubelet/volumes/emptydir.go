package volumes

import (
	"context"
	"fmt"
	"slices"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"

	"flyball.dev/kubelet/volumes/internal/mounter"
)

// emptyDir is a directory, or a file system in memory, that lives and dies with the Pod.
type emptyDir struct{ m *Manager }

func (emptyDir) Name() string           { return "kubernetes.io/empty-dir" }
func (emptyDir) CanSupport(s Spec) bool { return s.Volume.EmptyDir != nil }

func (p emptyDir) Publish(_ context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	done := Published{Mounted: Mounted{HostPath: paths.Target, SELinuxRelabel: true}}
	if p.m.cfg.NoFiles {
		return done, nil
	}
	if err := makeDir(paths.Target, FSGroup(spec.Pod)); err != nil {
		return done, err
	}
	switch medium := spec.Volume.EmptyDir.Medium; {
	case medium == v1.StorageMediumDefault:
		return done, nil
	case medium == v1.StorageMediumMemory:
		return done, mounter.Tmpfs(paths.Target, p.m.tmpfsSize(spec), FSGroup(spec.Pod))
	case v1helper.IsHugePageMedium(medium):
		return done, fmt.Errorf("emptyDir medium %s is not supported yet", medium)
	default:
		return done, fmt.Errorf("unknown storage medium %q", medium)
	}
}

// tmpfsSize is the least of sizeLimit, the memory limit of the Pod, and the memory of the node.
func (m *Manager) tmpfsSize(spec Spec) int64 {
	allocatable := m.cfg.Allocatable()
	sizes := []int64{allocatable.Memory().Value()}
	if allLimited(spec.Pod) {
		limits := resourcehelper.PodLimits(spec.Pod, resourcehelper.PodResourcesOptions{})
		sizes = append(sizes, limits.Memory().Value())
	}
	if limit := spec.Volume.EmptyDir.SizeLimit; limit != nil {
		sizes = append(sizes, limit.Value())
	}
	return lo.Min(lo.Filter(sizes, func(size int64, _ int) bool { return size > 0 }))
}

// allLimited says whether the Pod's memory is limited as a whole.
func allLimited(pod *v1.Pod) bool {
	if r := pod.Spec.Resources; r != nil && !r.Limits.Memory().IsZero() {
		return true
	}
	return lo.EveryBy(slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers), func(c v1.Container) bool {
		return !c.Resources.Limits.Memory().IsZero()
	})
}
