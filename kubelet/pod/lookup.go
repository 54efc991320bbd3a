package pod

import (
	"slices"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"
)

// Pods returns all Pods of this node with their newest status. They are not to be changed.
func (m *Manager) Pods() []*v1.Pod {
	return lo.Map(m.known(), func(p *v1.Pod, _ int) *v1.Pod { return m.current(p) })
}

// known are the Pods of this node without the mirrors of static ones.
func (m *Manager) known() []*v1.Pod {
	return slices.DeleteFunc(m.pods.Pods(), kubetypes.IsMirrorPod)
}

// Pod returns a Pod of this node with its newest status. It is not to be changed.
func (m *Manager) Pod(namespace, name string) (*v1.Pod, bool) {
	p, ok := m.pods.Pod(namespace, name)
	if !ok || kubetypes.IsMirrorPod(p) {
		return nil, false
	}
	return m.current(p), true
}

// current puts the status that the worker saw last, and that the API server may not have yet, in
// place of the one that was watched.
func (m *Manager) current(pod *v1.Pod) *v1.Pod {
	m.mu.Lock()
	w := m.workers[pod.UID]
	m.mu.Unlock()
	if w != nil && w.seen.Load() != nil {
		now := *pod
		now.Status = *w.seen.Load()
		return &now
	}
	return pod
}
