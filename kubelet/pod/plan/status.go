package plan

import (
	"cmp"
	"slices"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// Status returns the status to report about a Pod, which must not be nil. It keeps what the kubelet
// does not own, such as the conditions of others.
func Status(s State, now time.Time) v1.PodStatus {
	now = now.Truncate(time.Second) // as the API stores it
	old := s.LastStatus()
	r := &reporter{State: s, now: now, old: old}
	r.end, r.ended = endOf(&s, now)

	st := s.Pod.Status.DeepCopy()
	st.ObservedGeneration = s.Pod.Generation
	st.QOSClass = qos.GetPodQOS(s.Pod)
	st.StartTime = cmp.Or(old.StartTime, &metav1.Time{Time: now})
	if neverRan(&s) {
		// It has no containers: clients would show what these wait for instead of the reason.
		if t := s.Termination; t != nil && t.Refused {
			st.Phase, st.Reason, st.Message = v1.PodFailed, t.Reason, t.statusMessage()
		}
		return *st
	}
	r.addresses(st)
	if s.Pod.Spec.Resources != nil {
		st.AllocatedResources = requests(s.Pod)
		st.Resources = s.Pod.Spec.Resources.DeepCopy()
	}

	waiting := lo.Ternary(len(s.Pod.Spec.InitContainers) > 0, "PodInitializing", "ContainerCreating")
	st.InitContainerStatuses = r.containers(podutil.InitContainers, old.InitContainerStatuses, waiting)
	st.ContainerStatuses = byName(r.containers(podutil.Containers, old.ContainerStatuses, waiting))
	st.EphemeralContainerStatuses = byName(r.containers(podutil.EphemeralContainers, old.EphemeralContainerStatuses, waiting))

	r.phase(st)
	r.conditions(st)
	return *st
}

// neverRan says whether the node refuses the Pod, or did so before the agent restarted.
func neverRan(s *State) bool {
	if s.Termination != nil && s.Termination.Refused {
		return true
	}
	st := &s.Pod.Status
	return st.Phase == v1.PodFailed && len(st.ContainerStatuses)+len(st.InitContainerStatuses) == 0 &&
		len(s.Runtime.Sandboxes)+len(s.Runtime.Containers) == 0
}

type reporter struct {
	State
	now   time.Time
	old   v1.PodStatus
	end   end
	ended bool
}

// addresses keeps the last known address when the sandbox is gone: clients expect the address of a
// completed Pod.
func (r *reporter) addresses(st *v1.PodStatus) {
	st.HostIP, st.HostIPs = lo.FirstOrEmpty(r.Node.IPs), nil
	for _, ip := range r.Node.IPs {
		st.HostIPs = append(st.HostIPs, v1.HostIP{IP: ip})
	}
	st.PodIPs = r.old.PodIPs
	if ips := r.PodIPs(); len(ips) > 0 || r.Pod.Spec.HostNetwork {
		st.PodIPs = nil
		for _, ip := range ips {
			st.PodIPs = append(st.PodIPs, v1.PodIP{IP: ip})
		}
	}
	st.PodIP = lo.FirstOrEmpty(st.PodIPs).IP
}

// phase sets phase, reason and message. A terminal phase comes only after everything has ended, and
// stays.
func (r *reporter) phase(st *v1.PodStatus) {
	st.Phase, st.Reason, st.Message = cmp.Or(r.Pod.Status.Phase, v1.PodPending), r.old.Reason, r.old.Message
	if podutil.IsPodPhaseTerminal(st.Phase) {
		st.Reason, st.Message = r.Pod.Status.Reason, r.Pod.Status.Message
		return
	}
	phase := r.phaseByContainers(st)
	terminal := podutil.IsPodPhaseTerminal(phase)
	switch alive := r.alive(); {
	case alive && terminal:
		phase = lo.Ternary(r.old.Phase == v1.PodRunning, v1.PodRunning, st.Phase)
	case !alive && r.ended && r.end.by != nil:
		st.Phase, st.Reason, st.Message = v1.PodFailed, r.end.by.Reason, r.end.by.statusMessage()
		return
	case !alive && r.ended && !terminal:
		phase = v1.PodFailed // it was ended before its time
	}
	if phase != st.Phase {
		st.Phase, st.Reason, st.Message = phase, "", ""
	}
	if t := r.end.by; t != nil && t.Disruption != "" {
		st.Reason, st.Message = t.Reason, t.Message // see recorded
	}
}

// alive says whether a process of the Pod may run, or is being started.
func (r *reporter) alive() bool {
	for _, a := range r.InFlight {
		if _, ok := a.(StartContainer); ok {
			return true
		}
	}
	return slices.ContainsFunc(r.Runtime.Containers, cri.Container.Alive)
}

func (r *reporter) phaseByContainers(st *v1.PodStatus) v1.PodPhase {
	running, waiting, restarting, failed := 0, 0, 0, 0
	sb, _ := r.Sandbox()
	initialized := r.initialized(sb.ID)
	for i := range r.Pod.Spec.InitContainers {
		c, cs := &r.Pod.Spec.InitContainers[i], &st.InitContainerStatuses[i]
		ended := lastEnd(cs)
		if inst, ok := r.newest(c.Name); ok && r.superseded(inst) {
			ended = nil
		}
		switch {
		case isSidecar(c):
			if cs.State.Running != nil {
				running++
			}
			if !initialized && !ptr.Deref(cs.Started, false) {
				waiting++
			}
		case ended != nil && ended.ExitCode != 0 && !initialized &&
			!podutil.ContainerShouldRestart(*c, r.Pod.Spec, ended.ExitCode):
			return v1.PodFailed
		case !cs.Ready && !initialized:
			waiting++
		}
	}
	for _, cs := range st.ContainerStatuses {
		ended := lastEnd(&cs)
		inst, ok := r.newest(cs.Name)
		switch {
		case cs.State.Running != nil:
			running++
		case ok && r.superseded(inst):
			restarting++
		case ended == nil:
			waiting++
		default:
			if c, _ := cri.FindContainer(r.Pod, cs.Name); podutil.ContainerShouldRestart(*c, r.Pod.Spec, ended.ExitCode) {
				restarting++
			}
			if ended.ExitCode != 0 {
				failed++
			}
		}
	}
	switch {
	case waiting > 0:
		return v1.PodPending
	case running > 0, restarting > 0 && !r.ended:
		return v1.PodRunning
	case failed > 0:
		return v1.PodFailed
	default:
		return v1.PodSucceeded
	}
}

// lastEnd returns how a container that does not run ended, nil if it never ran.
func lastEnd(cs *v1.ContainerStatus) *v1.ContainerStateTerminated {
	if cs.State.Waiting != nil {
		return cs.LastTerminationState.Terminated
	}
	return cs.State.Terminated
}

// ContainerStatuses are those of the containers of all kinds.
func ContainerStatuses(st *v1.PodStatus) []v1.ContainerStatus {
	return slices.Concat(st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses)
}

// Running returns the running containers whose start is over, for probing.
func (s *State) Running() []cri.Container {
	return lo.Filter(s.Runtime.Containers, func(c cri.Container, _ int) bool { return c.State == cri.Running && !s.hooking(c) })
}
