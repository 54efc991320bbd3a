package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

func (r *reporter) conditions(st *v1.PodStatus) {
	containers := r.containersReady(st)
	r.set(st, r.readyToStart())
	r.set(st, r.initializedCondition(st))
	r.set(st, r.podReady(containers))
	r.set(st, containers)
	r.set(st, v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue})
	if t := r.end.by; t != nil && t.Disruption != "" {
		r.set(st, v1.PodCondition{
			Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: t.Disruption,
		})
	}
	if podutil.AllContainersCouldRestart(&r.Pod.Spec) {
		r.set(st, r.allRestarting(st.Phase))
	}
	r.resizeConditions(st)
}

// endedReasons are the reasons of conditions that do not hold because the Pod has ended.
var endedReasons = map[v1.PodPhase]string{v1.PodSucceeded: "PodCompleted", v1.PodFailed: "PodFailed"}

// allRestarting is true from the exit that makes all containers restart until the first of them is
// created again.
func (r *reporter) allRestarting(phase v1.PodPhase) v1.PodCondition {
	c := v1.PodCondition{Type: v1.AllContainersRestarting, Status: v1.ConditionFalse, Reason: endedReasons[phase]}
	if c.Reason == "" && !r.ended && r.restartingAll() {
		c.Status = v1.ConditionTrue
		c.Reason, c.Message = "RestartAllContainersStarted", "container exited with restart policy rule"
	}
	return c
}

// IsTrue says whether a status has a condition that is True.
func IsTrue(st *v1.PodStatus, t v1.PodConditionType) bool {
	_, c := podutil.GetPodCondition(st, t)
	return c != nil && c.Status == v1.ConditionTrue
}

// set replaces a condition. Its lastTransitionTime changes only with its status.
func (r *reporter) set(st *v1.PodStatus, c v1.PodCondition) {
	c.ObservedGeneration = r.Pod.Generation
	c.LastTransitionTime = metav1.Time{Time: r.now}
	if _, old := podutil.GetPodCondition(&r.old, c.Type); old != nil && old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
		c.LastProbeTime = old.LastProbeTime
	}
	if _, have := podutil.GetPodCondition(st, c.Type); have != nil {
		*have = c
		return
	}
	st.Conditions = append(st.Conditions, c)
}

func (r *reporter) readyToStart() v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionFalse, Reason: "PodSandboxNotReady"}
	switch sb, usable := r.Sandbox(); {
	case usable:
		c.Status, c.Reason = v1.ConditionTrue, ""
	case sb.ID == "":
		c.Message = "no pod sandbox exists"
	case sb.Ready && len(sb.IPs) == 0 && !sb.HostNetwork:
		c.Message = "pod sandbox has no IP address"
	default:
		c.Message = "pod sandbox is not ready"
	}
	return c
}

func (r *reporter) initializedCondition(st *v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if st.Phase == v1.PodSucceeded {
		c.Reason = endedReasons[st.Phase]
		return c
	}
	sb, _ := r.Sandbox()
	// Once initialized a Pod stays so, also while its init containers run again.
	if r.initialized(sb.ID) || IsTrue(&r.old, v1.PodInitialized) {
		return c
	}
	var incomplete []string
	for i, cs := range st.InitContainerStatuses {
		if spec := &r.Pod.Spec.InitContainers[i]; isSidecar(spec) && !ptr.Deref(cs.Started, false) || !isSidecar(spec) && !cs.Ready {
			incomplete = append(incomplete, spec.Name)
		}
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = v1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func (r *reporter) containersReady(st *v1.PodStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse, Reason: endedReasons[st.Phase]}
	if c.Reason != "" {
		return c
	}
	var unready []string
	for _, cs := range slices.Concat(st.InitContainerStatuses, st.ContainerStatuses) {
		if spec, kind := cri.FindContainer(r.Pod, cs.Name); !cs.Ready && (kind == podutil.Containers || isSidecar(spec)) {
			unready = append(unready, cs.Name)
		}
	}
	if len(unready) == 0 {
		c.Status = v1.ConditionTrue
		return c
	}
	c.Reason, c.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
	return c
}

// podReady adds the readiness gates, whose conditions others set.
func (r *reporter) podReady(c v1.PodCondition) v1.PodCondition {
	c.Type = v1.PodReady
	if c.Status != v1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range r.Pod.Spec.ReadinessGates {
		switch _, got := podutil.GetPodCondition(&r.Pod.Status, gate.ConditionType); {
		case got == nil:
			missing = append(missing, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", gate.ConditionType))
		case got.Status != v1.ConditionTrue:
			missing = append(missing, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", gate.ConditionType, got.Status))
		}
	}
	if len(missing) > 0 {
		c.Status, c.Reason, c.Message = v1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(missing, ", ")
	}
	return c
}

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
