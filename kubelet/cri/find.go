package cri

import (
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// FindContainer returns a container of any kind in the Pod's spec, and its kind; nil and 0 if the
// Pod is nil or has none of the name.
func FindContainer(pod *v1.Pod, name string) (*v1.Container, podutil.ContainerType) {
	if pod == nil {
		return nil, 0
	}
	for c, kind := range podutil.ContainerIter(&pod.Spec, podutil.AllContainers) {
		if c.Name == name {
			return c, kind
		}
	}
	return nil, 0
}

// FindStatus returns the status of a container of any kind in the Pod's status; nil if there is
// none.
func FindStatus(pod *v1.Pod, name string) *v1.ContainerStatus {
	s := &pod.Status
	for _, list := range [][]v1.ContainerStatus{
		s.ContainerStatuses, s.InitContainerStatuses, s.EphemeralContainerStatuses,
	} {
		if i, ok := podutil.GetIndexOfContainerStatus(list, name); ok {
			return &list[i]
		}
	}
	return nil
}

// NewestSandbox returns the newest sandbox, an empty one if there is none.
func (p Pod) NewestSandbox() Sandbox {
	if len(p.Sandboxes) == 0 {
		return Sandbox{}
	}
	return p.Sandboxes[0]
}

// Find returns the newest container that matches, and whether there is one.
func (p Pod) Find(matches func(Container) bool) (Container, bool) {
	if i := slices.IndexFunc(p.Containers, matches); i >= 0 {
		return p.Containers[i], true
	}
	return Container{}, false
}

// BareID is a container ID without the runtime's name: a Pod's status has containerd://ID, CRI has
// ID.
func BareID(id string) string {
	if _, bare, ok := strings.Cut(id, "://"); ok {
		return bare
	}
	return id
}
