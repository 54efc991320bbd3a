package plan

import (
	v1 "k8s.io/api/core/v1"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
)

// The UID of a Pod is its identity on the node: its worker, sandboxes, cgroup, volumes and logs go
// by it. A static Pod, from a file or URL, has a UID of its own, the hash of its source. The API
// server has a mirror Pod of it, with the same name and another UID. Only two things concern the
// mirror Pod: the status is written to it, and it is deleted from the API server.

// IsStatic says whether a Pod comes from a file or URL. Its annotation is not enough, because
// anybody can set it on a Pod of the API server. But only the API server gives a resourceVersion.
func IsStatic(pod *v1.Pod) bool {
	return kubetypes.IsStaticPod(pod) && pod.ResourceVersion == ""
}

// IsMirrorOf says whether a Pod of the API server is the mirror of a static Pod in its present
// version.
func IsMirrorOf(mirror, static *v1.Pod) bool {
	return kubetypes.IsMirrorPod(mirror) && IsStatic(static) &&
		mirror.Namespace == static.Namespace && mirror.Name == static.Name &&
		mirror.Annotations[kubetypes.ConfigMirrorAnnotationKey] == string(static.UID)
}

// Object returns what the API server has of the Pod, nil if it has nothing.
func (s *State) Object() *v1.Pod {
	switch {
	case s.Mirror != nil:
		return s.Mirror
	case s.Last != nil && IsStatic(s.Last):
		return nil
	}
	return s.Last
}

// deleteMirror deletes the mirror Pod when somebody asks for its deletion, which the static Pod
// survives, and when nothing of the static Pod runs any more.
func (p *planner) deleteMirror() {
	switch m := p.Mirror; {
	case m == nil || p.Deleted:
	case m.DeletionTimestamp != nil:
		p.do(DeletePod{"the mirror Pod is deleted, its static Pod is not"})
	case p.Pod == nil && p.Cleaned:
		p.do(DeletePod{"the mirror Pod has no static Pod"})
	}
}
