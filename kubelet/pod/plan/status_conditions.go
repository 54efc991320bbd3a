package plan

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// conditions sets the conditions that the kubelet owns and keeps all others.
func (r *reporter) conditions(st *v1.PodStatus) {
	all := make([]v1.ContainerStatus, 0, len(st.InitContainerStatuses)+len(st.ContainerStatuses))
	all = append(append(all, st.InitContainerStatuses...), st.ContainerStatuses...)
	containers := r.containersReady(st.Phase, all)
	r.set(st, r.readyToStart())
	r.set(st, r.initializedCondition(st.Phase, all))
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

// allRestarting is true from the exit that makes all containers restart until the first of them is
// created again.
func (r *reporter) allRestarting(phase v1.PodPhase) v1.PodCondition {
	c := v1.PodCondition{Type: v1.AllContainersRestarting, Status: v1.ConditionFalse}
	switch {
	case phase == v1.PodSucceeded:
		c.Reason = "PodCompleted"
	case phase == v1.PodFailed:
		c.Reason = "PodFailed"
	case !r.ended && r.restartingAll():
		c.Status = v1.ConditionTrue
		c.Reason, c.Message = "RestartAllContainersStarted", "container exited with restart policy rule"
	}
	return c
}

// set replaces a condition. Its lastTransitionTime changes only with its status.
func (r *reporter) set(st *v1.PodStatus, c v1.PodCondition) {
	c.ObservedGeneration = r.Pod.Generation
	c.LastTransitionTime = metav1.Time{Time: r.now}
	if _, old := podutil.GetPodCondition(&r.old, c.Type); old != nil && old.Status == c.Status {
		c.LastTransitionTime = old.LastTransitionTime
		c.LastProbeTime = old.LastProbeTime
	}
	if i, _ := podutil.GetPodCondition(st, c.Type); i >= 0 {
		st.Conditions[i] = c
	} else {
		st.Conditions = append(st.Conditions, c)
	}
}

func (r *reporter) readyToStart() v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionTrue}
	sb, usable := r.Sandbox()
	if usable {
		return c
	}
	c.Status, c.Reason = v1.ConditionFalse, "PodSandboxNotReady"
	switch {
	case sb.ID == "":
		c.Message = "no pod sandbox exists"
	case sb.Ready && len(sb.IPs) == 0 && !sb.HostNetwork:
		c.Message = "pod sandbox has no IP address"
	default:
		c.Message = "pod sandbox is not ready"
	}
	return c
}

func (r *reporter) initializedCondition(phase v1.PodPhase, all []v1.ContainerStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionTrue}
	if phase == v1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	sb, _ := r.Sandbox()
	// Once initialized a Pod stays so, also while its init containers run again.
	if _, was := podutil.GetPodCondition(&r.old, v1.PodInitialized); r.initialized(sb.ID) || was != nil && was.Status == v1.ConditionTrue {
		return c
	}
	var incomplete []string
	for i := range r.Pod.Spec.InitContainers {
		spec := &r.Pod.Spec.InitContainers[i]
		cs, ok := podutil.GetContainerStatus(all, spec.Name)
		if ok && (cs.Ready && !isSidecar(spec) || isSidecar(spec) && cs.Started != nil && *cs.Started) {
			continue
		}
		incomplete = append(incomplete, spec.Name)
	}
	if len(incomplete) > 0 {
		c.Status, c.Reason = v1.ConditionFalse, "ContainersNotInitialized"
		c.Message = fmt.Sprintf("containers with incomplete status: %s", incomplete)
	}
	return c
}

func (r *reporter) containersReady(phase v1.PodPhase, all []v1.ContainerStatus) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	switch phase {
	case v1.PodSucceeded:
		c.Reason = "PodCompleted"
		return c
	case v1.PodFailed:
		c.Reason = "PodFailed"
		return c
	}
	var unready []string
	for i := range all {
		spec, _ := cri.FindContainer(r.Pod, all[i].Name)
		isInit := i < len(r.Pod.Spec.InitContainers)
		if !all[i].Ready && (!isInit || isSidecar(spec)) {
			unready = append(unready, all[i].Name)
		}
	}
	if len(unready) > 0 {
		c.Reason, c.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

// podReady adds the readiness gates, whose conditions others set.
func (r *reporter) podReady(containers v1.PodCondition) v1.PodCondition {
	c := containers
	c.Type = v1.PodReady
	if c.Status != v1.ConditionTrue {
		return c
	}
	var missing []string
	for _, gate := range r.Pod.Spec.ReadinessGates {
		_, got := podutil.GetPodCondition(&r.Pod.Status, gate.ConditionType)
		switch {
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
