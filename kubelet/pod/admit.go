package pod

import (
	"context"
	"fmt"
	"sync"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/pod/plan"
)

// admissions decides about one Pod after the other, so that no two Pods get the same resources.
type admissions struct {
	mu       sync.Mutex
	admitted map[types.UID]bool
	// allocated is what each Pod has; files keep that of resized Pods.
	allocated map[types.UID]*plan.Allocation
	files     allocationFiles
	resizes   map[types.UID]plan.Resize   // the resizes that are not granted
	pending   map[types.UID]*plan.Pending // why
}

func newAdmissions(dir string) admissions {
	return admissions{
		admitted: map[types.UID]bool{}, allocated: map[types.UID]*plan.Allocation{}, files: allocationFiles{dir},
		resizes: map[types.UID]plan.Resize{}, pending: map[types.UID]*plan.Pending{},
	}
}

func (a *admissions) forget(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.admitted, uid)
	delete(a.allocated, uid)
	delete(a.resizes, uid)
	delete(a.pending, uid)
}

// admit decides once whether the Pod may run here. A Pod that was admitted stays so, whatever
// changes and whether or not this process remembers: its status has a startTime, or the runtime
// knows it.
func (w *worker) admit(ctx context.Context) error {
	s := &w.state
	if w.admitted || s.Termination != nil || s.Pod == nil || s.Pod.DeletionTimestamp != nil || podutil.IsPodPhaseTerminal(s.Pod.Status.Phase) {
		return nil
	}
	if s.Pod.Status.StartTime != nil || len(s.Runtime.Sandboxes)+len(s.Runtime.Containers) > 0 {
		w.admitted = true
		w.m.admissions.mu.Lock()
		defer w.m.admissions.mu.Unlock()
		w.m.admissions.admitted[w.uid] = true
		return nil
	}
	r, err := w.m.admit(ctx, s.Pod)
	if err != nil {
		return err
	}
	w.admitted, s.Termination = r == nil, r
	return nil
}

// admit compares a Pod with the node. Before it refuses a Pod because of the node's labels it reads
// them from the API server: the watch may lag.
func (m *Manager) admit(ctx context.Context, pod *v1.Pod) (*plan.Termination, error) {
	if node := m.cfg.NodeObject(); node != nil {
		if r := m.decide(pod, node); r == nil || r.Reason != plan.ReasonNodeAffinity {
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

func (m *Manager) decide(pod *v1.Pod, node *v1.Node) *plan.Termination {
	if m.cfg.Sysctls != nil {
		if reason, message := m.cfg.Sysctls(pod); reason != "" {
			return plan.Refuse(reason, message)
		}
	}
	m.admissions.mu.Lock()
	defer m.admissions.mu.Unlock()
	r := plan.Admit(pod, node, m.allocatable(node), m.others(pod.UID))
	if r == nil {
		m.admissions.admitted[pod.UID] = true
		m.admissions.allocated[pod.UID] = plan.AllocationOf(pod, 0)
	}
	return r
}

// others are the Pods that run here except one, with their allocations. The caller holds the lock
// of the admissions.
func (m *Manager) others(but types.UID) []*v1.Pod {
	return lo.FilterMap(m.known(), func(p *v1.Pod, _ int) (*v1.Pod, bool) {
		admitted := m.admissions.admitted[p.UID] || p.Status.StartTime != nil
		over := podutil.IsPodTerminal(p) || podutil.IsPodTerminal(m.current(p))
		return m.admissions.allocated[p.UID].Apply(p), p.UID != but && admitted && !over
	})
}
