package pod

import (
	"context"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
)

// allocate finds out what the Pod may have, and puts that in place of what it wants.
func (w *worker) allocate() error {
	s := &w.state
	if w.desired == nil || s.Rejected != nil || !w.admitted && len(s.Runtime.Containers) == 0 {
		return nil
	}
	over := w.desired.DeletionTimestamp != nil || podutil.IsPodPhaseTerminal(w.desired.Status.Phase) ||
		s.Status != nil && podutil.IsPodPhaseTerminal(s.Status.Phase)
	given, pending, err := w.m.allocate(w.desired, over, func() *plan.Allocation { return plan.Made(w.desired, s.Runtime) })
	s.Pending = pending
	if given != s.Allocation {
		s.Allocation = given
		delete(s.Failures, plan.SlotResize) // of another size
	}
	w.adoptAllocated()
	return err
}

// adoptAllocated makes the Pod of the State. It stays the same object as long as
// nothing changes: actions tell by it whether they have seen the newest one.
func (w *worker) adoptAllocated() {
	s := &w.state
	if w.desired != w.renderedFrom || s.Allocation != w.renderedWith {
		w.renderedFrom, w.renderedWith = w.desired, s.Allocation
		s.Pod = s.Allocation.Apply(w.desired)
		s.Wanted = nil
		if s.Allocation.Resized() {
			s.Wanted = wanted(w.m.cfg.Render, s.Pod)
		}
	}
	s.Last = s.Pod
}

func wanted(node containers.Node, pod *v1.Pod) map[string]cri.Resources {
	all := map[string]cri.Resources{}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			all[list[i].Name] = remote.ResourcesOf(containers.Update(node, pod, &list[i]))
		}
	}
	return all
}

// allocate returns what a Pod has, and why it does not have what it wants. It
// decides about the Pods that wait as well, see Allocate. After an error the Pod has
// what it had.
func (m *Manager) allocate(pod *v1.Pod, over bool, made func() *plan.Allocation) (*plan.Allocation, *plan.Pending, error) {
	a := &m.admissions
	a.mu.Lock()
	defer a.mu.Unlock()
	given := a.allocated[pod.UID]
	if given == nil {
		given = made()
		a.allocated[pod.UID] = given
	}
	if over || given.Grants(pod) {
		delete(a.claims, pod.UID)
		delete(a.pending, pod.UID)
		return given, nil, nil
	}
	if old, ok := a.claims[pod.UID]; !ok || old.Pod.Generation != pod.Generation {
		since := time.Now()
		if _, c := podutil.GetPodCondition(&pod.Status, v1.PodResizePending); c != nil {
			since = c.LastTransitionTime.Time
		}
		a.claims[pod.UID] = plan.Claim{Pod: pod, Since: since}
		if err := m.decideClaims(pod.UID); err != nil {
			delete(a.claims, pod.UID)
			return a.allocated[pod.UID], a.pending[pod.UID], err
		}
	}
	return a.allocated[pod.UID], a.pending[pod.UID], nil
}

// roomAppeared has the Pods that wait for room decided about soon. It does not wait: it is called from a handler of the
// watch, and a grant is written to disk first.
func (m *Manager) roomAppeared() {
	select {
	case m.room <- struct{}{}:
	default:
	}
}

// giveRoom decides about the Pods that wait for room whenever some may have appeared, until ctx ends.
func (m *Manager) giveRoom(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.room:
		}
		m.admissions.mu.Lock()
		err := m.decideClaims("")
		m.admissions.mu.Unlock()
		if err != nil {
			klog.FromContext(ctx).V(1).Info("Cannot grant a resize, trying again when something changes", "err", err)
		}
	}
}

// decideClaims grants what there is room for, and wakes the workers of those for
// whom something has changed, besides the caller's. The caller holds the lock.
func (m *Manager) decideClaims(caller types.UID) (err error) {
	a := &m.admissions
	if len(a.claims) == 0 {
		return nil
	}
	var claims []plan.Claim
	for uid, c := range a.claims {
		claims = append(claims, plan.Claim{Pod: c.Pod, Now: a.allocated[uid].Apply(c.Pod), Since: c.Since})
	}
	refused := plan.Allocate(claims, m.allocatable(m.cfg.NodeObject()), m.others(""))
	for uid, c := range maps.Clone(a.claims) {
		if why := refused[uid]; why != nil {
			if old := a.pending[uid]; old == nil || *old != *why {
				a.pending[uid] = why
				m.wake(uid, caller)
			}
			continue
		}
		granted := plan.AllocationOf(c.Pod, c.Pod.Generation)
		if saveErr := a.files.save(uid, granted); saveErr != nil {
			err = saveErr // it has what it had; nothing was begun
			continue
		}
		a.allocated[uid] = granted
		delete(a.claims, uid)
		delete(a.pending, uid)
		m.wake(uid, caller)
	}
	return err
}

func (m *Manager) wake(uid, caller types.UID) {
	if uid == caller {
		return
	}
	m.mu.Lock()
	w := m.workers[uid]
	m.mu.Unlock()
	if w != nil {
		w.poke()
	}
}

func (m *Manager) offerOf(node *v1.Node) plan.Offer {
	return plan.Offer{Node: node, Allocatable: m.allocatable(node)}
}

// allocatable is what the node has. What we measure ourselves, all that a resize is about, may
// not have been written yet, and is known before the Node is seen.
func (m *Manager) allocatable(node *v1.Node) v1.ResourceList {
	all := v1.ResourceList{}
	if node != nil {
		maps.Copy(all, node.Status.Allocatable)
	}
	maps.Copy(all, m.cfg.Render.Allocatable)
	return all
}

func (m *Manager) readNode(ctx context.Context) (*v1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	return m.cfg.Client.CoreV1().Nodes().Get(ctx, m.cfg.NodeName, metav1.GetOptions{})
}
