package pod

import (
	"context"
	"fmt"
	"maps"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
)

// admissions decides about one Pod after the other, so that two of them cannot
// both get the last place on the node.
type admissions struct {
	mu       sync.Mutex
	admitted map[types.UID]bool
}

func (a *admissions) note(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.admitted[uid] = true
}

func (a *admissions) forget(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.admitted, uid)
}

// admit decides once whether the Pod may run here. A Pod that was let in before is
// never refused again, whatever has changed since, and whether or not this process
// remembers: its status has a startTime, or the runtime knows it.
func (w *worker) admit(ctx context.Context) error {
	s := &w.state
	if w.admitted || s.Rejected != nil || s.Pod == nil || s.Pod.DeletionTimestamp != nil || podutil.IsPodPhaseTerminal(s.Pod.Status.Phase) {
		return nil
	}
	if s.Pod.Status.StartTime != nil || len(s.Runtime.Sandboxes)+len(s.Runtime.Containers) > 0 {
		w.admitted = true
		w.m.admissions.note(w.uid)
		return nil
	}
	r, err := w.m.admit(ctx, s.Pod)
	if err != nil {
		return err
	}
	if w.admitted = r == nil; !w.admitted {
		s.Rejected = r
		w.event("", v1.EventTypeWarning, r.Reason, r.eventMessage())
	}
	return nil
}

// admit compares a Pod with the node, of which it reads the labels once more
// before it refuses a Pod because of them: the watch may lag.
func (m *Manager) admit(ctx context.Context, pod *v1.Pod) (*Rejection, error) {
	if node := m.cfg.NodeObject(); node != nil {
		if r := m.decide(pod, node); r == nil || r.Reason != reasonNodeAffinity {
			return r, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	node, err := m.cfg.Client.CoreV1().Nodes().Get(ctx, m.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading Node %s, to see whether the Pod fits: %w", m.cfg.NodeName, err)
	}
	return m.decide(pod, node), nil
}

func (m *Manager) decide(pod *v1.Pod, node *v1.Node) *Rejection {
	offer := Offer{Node: node, Allocatable: v1.ResourceList{}}
	maps.Copy(offer.Allocatable, node.Status.Allocatable)
	// What we measure ourselves may not have been written yet.
	maps.Copy(offer.Allocatable, m.cfg.Render.Allocatable)

	m.admissions.mu.Lock()
	defer m.admissions.mu.Unlock()
	var others []*v1.Pod
	for _, p := range m.pods.Pods() {
		if p.UID == pod.UID || !m.admissions.admitted[p.UID] && p.Status.StartTime == nil {
			continue
		}
		if !podutil.IsPodPhaseTerminal(p.Status.Phase) && !podutil.IsPodPhaseTerminal(m.current(p).Status.Phase) {
			others = append(others, p)
		}
	}
	r := Admit(pod, offer, others)
	if r == nil {
		m.admissions.admitted[pod.UID] = true
	}
	return r
}
