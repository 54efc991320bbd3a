package plan

import (
	"slices"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// resizeConditions sets the conditions about a resize, and removes those that do not hold. Their
// observedGeneration is that of the spec that was decided about, not the newest one.
func (r *reporter) resizeConditions(st *v1.PodStatus) {
	st.Conditions = slices.DeleteFunc(st.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodResizePending || c.Type == v1.PodResizeInProgress
	})
	if podutil.IsPodPhaseTerminal(st.Phase) {
		return
	}
	if p := r.Pending; p != nil {
		r.add(st, v1.PodCondition{
			Type: v1.PodResizePending, Message: p.Message, ObservedGeneration: p.Generation,
			Reason: lo.Ternary(p.Reason == v1.PodReasonInfeasible, v1.PodReasonInfeasible, v1.PodReasonDeferred),
		})
	}
	if r.resizing() {
		f := r.Failures[SlotResize]
		r.add(st, v1.PodCondition{
			Type: v1.PodResizeInProgress, Reason: f.Reason, Message: f.Message, ObservedGeneration: r.Allocation.Generation,
		})
	}
}

// add adds a condition about a resize. Its status is always True, so its lastTransitionTime changes
// with its reason.
func (r *reporter) add(st *v1.PodStatus, c v1.PodCondition) {
	c.Status, c.LastTransitionTime = v1.ConditionTrue, metav1.Time{Time: r.now}
	if _, old := podutil.GetPodCondition(&r.old, c.Type); old != nil && old.Reason == c.Reason {
		c.LastTransitionTime = old.LastTransitionTime
	}
	st.Conditions = append(st.Conditions, c)
}

// resources returns what a container has now. If that is its allocation, the numbers are those of
// the spec: the units of the runtime are coarser.
func (r *reporter) resources(spec *v1.Container, inst cri.Container, was v1.ContainerStatus) *v1.ResourceRequirements {
	out := spec.Resources.DeepCopy()
	wanted, ok := r.Wanted[spec.Name]
	if !ok || inst.State != cri.Running {
		return out
	}
	has := r.has(inst)
	if has.Satisfies(wanted) && !r.mustRestart(inst) || has == (cri.Resources{}) {
		return out
	}
	if out.Requests != nil && has.CPUShares != wanted.CPUShares && has.CPUShares > 0 {
		out.Requests[v1.ResourceCPU] = *resource.NewMilliQuantity((has.CPUShares*1000+1023)/1024, resource.DecimalSI)
	}
	if out.Limits != nil && has.CPUQuota != wanted.CPUQuota && has.CPUQuota > 0 && has.CPUPeriod > 0 {
		out.Limits[v1.ResourceCPU] = *resource.NewMilliQuantity(has.CPUQuota*1000/has.CPUPeriod, resource.DecimalSI)
	}
	if out.Limits != nil && has.Memory != wanted.Memory && has.Memory > 0 {
		out.Limits[v1.ResourceMemory] = *resource.NewQuantity(has.Memory, resource.BinarySI)
	}
	// The runtime does not report memory requests: until the container is resized, the last one
	// holds.
	if was.Resources != nil && out.Requests != nil {
		if q, ok := was.Resources.Requests[v1.ResourceMemory]; ok {
			out.Requests[v1.ResourceMemory] = q
		}
	}
	return out
}
