package pod

import v1 "k8s.io/api/core/v1"

// Pods returns all Pods of this node with their newest status. They are not to
// be changed.
func (m *Manager) Pods() []*v1.Pod {
	known := m.pods.Pods()
	pods := make([]*v1.Pod, 0, len(known))
	for _, p := range known {
		pods = append(pods, m.current(p))
	}
	return pods
}

// Pod returns a Pod of this node with its newest status. It is not to be changed.
func (m *Manager) Pod(namespace, name string) (*v1.Pod, bool) {
	p, ok := m.pods.Pod(namespace, name)
	if !ok {
		return nil, false
	}
	return m.current(p), true
}

// current puts the status that the worker saw last, and that the API server may
// not have yet, in place of the one that was watched.
func (m *Manager) current(pod *v1.Pod) *v1.Pod {
	m.mu.Lock()
	w := m.workers[pod.UID]
	m.mu.Unlock()
	if w == nil {
		return pod
	}
	status := w.seen.Load()
	if status == nil {
		return pod
	}
	now := *pod
	now.Status = *status
	return &now
}
