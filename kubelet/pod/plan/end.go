package plan

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// Termination is the node's decision to end a Pod, whatever the spec of the Pod wants: the node
// refuses or evicts the Pod, its deadline has passed, a critical Pod preempts it, or the node shuts
// down. The Pod ends as Failed.
type Termination struct {
	Reason, Message string // of the Pod's status and of the Event
	Refused         bool   // the node did not admit the Pod, whose status has no containers then
	// Disruption is the message of the condition DisruptionTarget, whose reason is
	// TerminationByKubelet. The Pod does not get the condition if it is empty. The condition is
	// written before anything ends: by it a restarted agent knows the decision.
	Disruption string
	// GracePeriodSeconds shortens the grace period of the Pod; nil leaves it as it is. It is lost
	// when the agent restarts.
	GracePeriodSeconds *int64
	Annotations        map[string]string // of the Event
}

// ReasonDeadlineExceeded is the reason of a Pod that ran longer than activeDeadlineSeconds.
const ReasonDeadlineExceeded = "DeadlineExceeded"

// statusMessage is the message of the Pod's status.
func (t *Termination) statusMessage() string {
	return lo.Ternary(t.Refused, "Pod was rejected: ", "") + t.Message
}

// end is why a Pod is over.
type end struct {
	reason Reason
	by     *Termination // nil if the node did not decide it
}

// endOf says whether nothing of the Pod is to run any more.
func endOf(s *State, now time.Time) (end, bool) {
	t := s.termination(now)
	switch {
	case s.Pod == nil:
		return end{"the API server does not know the Pod", t}, true
	case s.Pod.DeletionTimestamp != nil:
		return end{"the Pod is deleted", t}, true
	case podutil.IsPodPhaseTerminal(s.Pod.Status.Phase):
		return end{"the Pod has ended", t}, true
	case t != nil:
		return end{Reason("the node ends the Pod: " + t.Reason), t}, true
	}
	why, done := finished(s)
	return end{reason: why}, done
}

// termination returns the node's decision to end the Pod, nil if there is none.
func (s *State) termination(now time.Time) *Termination {
	switch {
	case s.Termination != nil:
		return s.Termination
	case s.Pod == nil || podutil.IsPodPhaseTerminal(s.Pod.Status.Phase):
		return nil
	case recorded(&s.Pod.Status) != nil:
		return recorded(&s.Pod.Status)
	case s.Pod.DeletionTimestamp == nil && s.exceedsDeadline(now):
		const message = "Pod was active on the node longer than the specified deadline"
		return &Termination{Reason: ReasonDeadlineExceeded, Message: message}
	}
	return nil
}

// recorded is the decision of an earlier process, as its status says.
func recorded(st *v1.PodStatus) *Termination {
	_, c := podutil.GetPodCondition(st, v1.DisruptionTarget)
	if !IsTrue(st, v1.DisruptionTarget) || c.Reason != v1.PodReasonTerminationByKubelet || st.Reason == "" {
		return nil
	}
	return &Termination{Reason: st.Reason, Message: st.Message, Disruption: c.Message}
}

func (s *State) exceedsDeadline(now time.Time) bool {
	at, ok := deadlineOf(s)
	if !ok || now.Before(at) {
		return false
	}
	_, done := finished(s)
	return !done || slices.ContainsFunc(s.Runtime.Containers, func(c cri.Container) bool {
		return c.Alive() || c.FinishedAt.After(at)
	})
}

// NoteEnd keeps since when the Pod has been over, and the node's decision that it is. It returns a
// new decision, for the Event about it.
func (s *State) NoteEnd(now time.Time) *Termination {
	e, over := endOf(s, now)
	switch {
	case !over:
		s.Ending = time.Time{}
	case s.Ending.IsZero():
		s.Ending = now
	}
	if e.by == nil || s.Announced {
		return nil
	}
	old := s.Termination == nil && recorded(&s.Pod.Status) != nil
	s.Termination, s.Announced = e.by, true
	return lo.Ternary(old, nil, e.by)
}

// finished says whether no container, sidecars excepted, runs or will run.
func finished(s *State) (Reason, bool) {
	sb, usable := s.Sandbox()
	for c := range podutil.ContainerIter(&s.Pod.Spec, podutil.InitContainers) {
		ended, ok := s.newest(c.Name)
		if ok && !s.superseded(ended) && !isSidecar(c) && ended.State == cri.Exited && ended.ExitCode != 0 &&
			!s.initialized(sb.ID) && !s.restarts(c, ended) {
			return "an init container failed", true
		}
	}
	left, made := false, false
	for c := range podutil.ContainerIter(&s.Pod.Spec, podutil.Containers) {
		ended, ok := s.newest(c.Name)
		if ok && s.superseded(ended) {
			left = true
			continue
		}
		made = made || ok
		if !ok {
			// Whatever cleaned the runtime up: what has ended does not run again.
			st := cri.FindStatus(s.Pod, c.Name)
			if st == nil || st.State.Terminated == nil {
				left = true
				continue
			}
			ended = cri.Container{State: cri.Exited, ExitCode: st.State.Terminated.ExitCode}
		}
		left = left || ended.State != cri.Exited || s.restarts(c, ended)
	}
	if !left {
		return "all containers have ended", true
	}
	lost := !usable && len(s.Runtime.Sandboxes) > 0 && made && s.Pod.Spec.RestartPolicy == v1.RestartPolicyNever
	return "the sandbox was lost, and the restart policy is Never", lost
}

// deadlineOf returns when activeDeadlineSeconds have passed.
func deadlineOf(s *State) (time.Time, bool) {
	start := cmp.Or(s.Pod.Status.StartTime, s.LastStatus().StartTime)
	if s.Pod.Spec.ActiveDeadlineSeconds == nil || start == nil {
		return time.Time{}, false
	}
	return start.Add(time.Duration(*s.Pod.Spec.ActiveDeadlineSeconds) * time.Second), true
}

// end ends everything: it cancels actions, ends the containers, stops the sandboxes, and cleans up.
// Nothing of a deleted Pod stays.
func (p *planner) end(e end) {
	waiting := false
	for _, slot := range slices.Sorted(maps.Keys(p.InFlight)) {
		switch p.InFlight[slot].(type) {
		case MountVolumes, CreateSandbox, PullImage, StartContainer, GrowCgroup, CheckMemory, ResizeContainer, ShrinkCgroup:
			p.actions = append(p.actions, Cancel{slot, e.reason})
			waiting = true
		}
	}
	if p.endContainers(e) || waiting {
		return
	}
	for _, sb := range p.Runtime.Sandboxes {
		if !p.Stopped[sb.ID] {
			p.do(StopSandbox{sb.ID, e.reason})
			waiting = true
		}
	}
	switch {
	case waiting:
	case !p.Cleaned:
		p.do(CleanUp{e.reason})
	case p.Pod == nil:
		p.remove(e)
	case p.Pod.DeletionTimestamp != nil:
		if p.Reported && !p.Deleted {
			p.do(DeletePod{"everything of the Pod is cleaned up"})
		}
	default:
		p.collect()
	}
}

// endContainers ends the running containers. Sidecars end after the regular containers, in reverse
// order, but no later than the grace period allows. It says whether any container runs.
func (p *planner) endContainers(e end) bool {
	since := cmp.Or(p.Ending, p.now)
	alive := lo.Filter(p.Runtime.Containers, func(c cri.Container, _ int) bool { return c.Alive() })
	regular, lastSidecar := false, -1
	for _, c := range alive {
		i := sidecarIndex(p.Last, c.Name)
		regular, lastSidecar = regular || i < 0, max(lastSidecar, i)
	}
	for _, c := range alive {
		i := sidecarIndex(p.Last, c.Name)
		grace := p.grace(c)
		if e.by != nil && e.by.GracePeriodSeconds != nil {
			grace = min(grace, time.Duration(*e.by.GracePeriodSeconds)*time.Second)
		}
		due := i < 0 || (!regular && i == lastSidecar)
		p.stop(c, Stopping{Since: since, Grace: grace, Reason: e.reason}, due)
	}
	return len(alive) > 0
}

func sidecarIndex(pod *v1.Pod, name string) int {
	return slices.IndexFunc(ptr.Deref(pod, v1.Pod{}).Spec.InitContainers, func(c v1.Container) bool {
		return c.Name == name && isSidecar(&c)
	})
}

// remove removes everything of a Pod that the API server does not have any more.
func (p *planner) remove(e end) {
	if !p.Purged {
		p.do(Purge{e.reason})
	}
	for _, sb := range p.Runtime.Sandboxes {
		p.do(RemoveSandbox{sb.ID, e.reason})
	}
	if len(p.Runtime.Sandboxes) > 0 {
		return // and with them their containers
	}
	for _, c := range p.Runtime.Containers {
		p.do(RemoveContainer{c.ID, c.Name, e.reason})
	}
}

// Gone says whether nothing of the Pod is left anywhere, so that its worker may end.
func (s *State) Gone() bool {
	return s.Pod == nil && s.Cleaned && s.Purged && (s.Mirror == nil || s.Deleted) && len(s.InFlight) == 0 &&
		len(s.Runtime.Sandboxes) == 0 && len(s.Runtime.Containers) == 0
}
