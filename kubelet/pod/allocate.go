package pod

import (
	"context"
	"maps"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/cri/remote"
	"flyball.dev/kubelet/pod/plan"
)

// allocate puts the resources that the node grants in place of those that the Pod wants.
func (w *worker) allocate() error {
	s := &w.state
	if w.desired == nil || !w.admitted && len(s.Runtime.Containers) == 0 {
		return nil
	}
	over := w.desired.DeletionTimestamp != nil || podutil.IsPodPhaseTerminal(w.desired.Status.Phase) ||
		s.Status != nil && podutil.IsPodPhaseTerminal(s.Status.Phase)
	given, pending, err := w.m.allocate(w.desired, s.Runtime, over)
	s.Pending = pending
	if given != s.Allocation {
		s.Allocation = given
		delete(s.Failures, plan.SlotResize) // of another size
	}
	w.adoptAllocated()
	return err
}

// adoptAllocated makes the Pod of the State, which stays the same object as long as nothing
// changes.
func (w *worker) adoptAllocated() {
	s := &w.state
	if w.desired != w.renderedFrom || s.Allocation != w.renderedWith {
		w.renderedFrom, w.renderedWith = w.desired, s.Allocation
		s.Pod = s.Allocation.Apply(w.desired)
		s.Wanted = map[string]cri.Resources{}
		for c := range podutil.ContainerIter(&s.Pod.Spec, podutil.InitContainers|podutil.Containers) {
			if s.Allocation.Resized() {
				s.Wanted[c.Name] = remote.ResourcesOf(containers.Update(w.m.cfg.Render, s.Pod, c))
			}
		}
	}
	s.Last = s.Pod
}

// allocate returns what a Pod is allocated, and why it is not what the Pod wants. It also decides
// about the Pods that wait, see plan.Allocate. After an error the Pod has what it had.
func (m *Manager) allocate(pod *v1.Pod, runtime cri.Pod, over bool) (*plan.Allocation, *plan.Pending, error) {
	a := &m.admissions
	a.mu.Lock()
	defer a.mu.Unlock()
	given := a.allocated[pod.UID]
	if given == nil {
		given = plan.Made(pod, runtime)
		a.allocated[pod.UID] = given
	}
	if over || given.Grants(pod) {
		delete(a.resizes, pod.UID)
		delete(a.pending, pod.UID)
		return given, nil, nil
	}
	if old, ok := a.resizes[pod.UID]; !ok || old.Desired.Generation != pod.Generation {
		since := time.Now()
		if _, c := podutil.GetPodCondition(&pod.Status, v1.PodResizePending); c != nil {
			since = c.LastTransitionTime.Time
		}
		a.resizes[pod.UID] = plan.Resize{Desired: pod, Since: since}
		if err := m.decideResizes(pod.UID); err != nil {
			delete(a.resizes, pod.UID)
			return a.allocated[pod.UID], a.pending[pod.UID], err
		}
	}
	return a.allocated[pod.UID], a.pending[pod.UID], nil
}

func (m *Manager) grantResizes(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.freed:
		}
		m.admissions.mu.Lock()
		err := m.decideResizes("")
		m.admissions.mu.Unlock()
		if err != nil {
			klog.FromContext(ctx).V(1).Info("Cannot grant a resize, trying again when something changes", "err", err)
		}
	}
}

// decideResizes grants the resizes that fit, and wakes the workers of the Pods for which something
// has changed, except the caller's own. The caller holds the lock.
func (m *Manager) decideResizes(caller types.UID) (err error) {
	a := &m.admissions
	if len(a.resizes) == 0 {
		return nil
	}
	resizes := lo.MapToSlice(a.resizes, func(uid types.UID, r plan.Resize) plan.Resize {
		return plan.Resize{Desired: r.Desired, Allocated: a.allocated[uid].Apply(r.Desired), Since: r.Since}
	})
	wake := func(uid types.UID) {
		if uid != caller {
			m.notify(uid, update{})
		}
	}
	refused := plan.Allocate(resizes, m.allocatable(m.cfg.NodeObject()), m.others(""))
	for uid, r := range maps.Clone(a.resizes) {
		if why := refused[uid]; why != nil {
			if old := a.pending[uid]; old == nil || *old != *why {
				a.pending[uid] = why
				wake(uid)
			}
			continue
		}
		granted := plan.AllocationOf(r.Desired, r.Desired.Generation)
		if saveErr := a.files.save(uid, granted); saveErr != nil {
			err = saveErr // the Pod has what it had
			continue
		}
		a.allocated[uid] = granted
		delete(a.resizes, uid)
		delete(a.pending, uid)
		wake(uid)
	}
	return err
}

// allocatable is what the node offers to Pods. Render has what this agent measures itself, before
// the Node is seen or updated.
func (m *Manager) allocatable(node *v1.Node) v1.ResourceList {
	if node == nil {
		return m.cfg.Render.Allocatable
	}
	return lo.Assign(node.Status.Allocatable, m.cfg.Render.Allocatable)
}
