package plan

import (
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
)

// end is why and how a Pod ends.
type end struct {
	reason Reason
	// failed is the reason and message of the Pod's status, if the node decided.
	failed Rejection
}

// endOf says whether nothing of the Pod is to run any more.
func endOf(s *State, now time.Time) (end, bool) {
	switch {
	case s.Pod == nil:
		return end{reason: "the API server does not know the Pod"}, true
	case s.Pod.DeletionTimestamp != nil:
		return end{reason: "the Pod is deleted"}, true
	case s.Pod.Status.Phase == v1.PodSucceeded || s.Pod.Status.Phase == v1.PodFailed:
		return end{reason: "the Pod has ended"}, true
	case s.Rejected != nil:
		return end{reason: "the node refuses the Pod", failed: *s.Rejected}, true
	}
	why, done := finished(s)
	if at, ok := deadlineOf(s); ok && !now.Before(at) && (!done || !endedBefore(s, at)) {
		return end{
			reason: "the Pod ran longer than activeDeadlineSeconds",
			failed: Rejection{"DeadlineExceeded", "Pod was active on the node longer than the specified deadline"},
		}, true
	}
	return end{reason: why}, done
}

// NoteEnding keeps Ending: since when the Pod has been over, zero while it is not.
func (s *State) NoteEnding(now time.Time) {
	switch _, over := endOf(s, now); {
	case !over:
		s.Ending = time.Time{}
	case s.Ending.IsZero():
		s.Ending = now
	}
}

// finished says whether no container is left that runs or is to run, sidecars aside.
func finished(s *State) (Reason, bool) {
	sb, usable := s.Sandbox()
	inits := s.Pod.Spec.InitContainers
	for i := range inits {
		ended, ok := s.newest(inits[i].Name)
		if ok && !s.superseded(ended) && !isSidecar(&inits[i]) && ended.State == cri.Exited && ended.ExitCode != 0 &&
			!s.initialized(sb.ID) && !s.restarts(&inits[i], ended) {
			return "an init container failed", true
		}
	}
	left, made := false, false
	for i := range s.Pod.Spec.Containers {
		c := &s.Pod.Spec.Containers[i]
		ended, ok := s.newest(c.Name)
		if ok && s.superseded(ended) {
			left = true
			continue
		}
		made = made || ok
		if !ok {
			// Whatever cleaned the runtime up: what has ended does not run again.
			st := recordedStatus(s.Pod, c.Name)
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

// deadlineOf returns when activeDeadlineSeconds are over.
func deadlineOf(s *State) (time.Time, bool) {
	start := s.Pod.Status.StartTime
	if start == nil && s.Status != nil {
		start = s.Status.StartTime
	}
	if s.Pod.Spec.ActiveDeadlineSeconds == nil || start == nil {
		return time.Time{}, false
	}
	return start.Add(time.Duration(*s.Pod.Spec.ActiveDeadlineSeconds) * time.Second), true
}

func endedBefore(s *State, at time.Time) bool {
	for _, c := range s.Runtime.Containers {
		if c.Alive() || c.FinishedAt.After(at) {
			return false
		}
	}
	return true
}

// end brings everything down: gives up what is under way, ends the containers,
// stops the sandboxes, cleans up. Of a deleted Pod nothing stays.
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
	if waiting {
		return
	}
	if !p.Cleaned {
		p.do(CleanUp{e.reason})
		return
	}
	switch {
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

// endContainers stops what runs. Sidecars end after the regular containers, in
// reverse order, but not later than the grace allows. It says whether any is left.
func (p *planner) endContainers(e end) bool {
	since := p.Ending
	if since.IsZero() {
		since = p.now
	}
	regular, lastSidecar := false, -1
	for _, c := range p.Runtime.Containers {
		if !c.Alive() {
			continue
		}
		if i := sidecarIndex(p.Last, c.Name); i < 0 {
			regular = true
		} else {
			lastSidecar = max(lastSidecar, i)
		}
	}
	for _, c := range p.Runtime.Containers {
		if !c.Alive() {
			continue
		}
		i := sidecarIndex(p.Last, c.Name)
		turn := i < 0 || (!regular && i == lastSidecar)
		p.stop(c, Stopping{
			Since: since, Grace: p.grace(c), Reason: e.reason, Message: "Stopping container " + c.Name,
		}, turn)
	}
	return regular || lastSidecar >= 0
}

func sidecarIndex(pod *v1.Pod, name string) int {
	if pod == nil {
		return -1
	}
	return slices.IndexFunc(pod.Spec.InitContainers, func(c v1.Container) bool {
		return c.Name == name && isSidecar(&c)
	})
}

// remove takes the last traces of a Pod away that the API server no longer knows.
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

// gone says whether nothing of the Pod is left anywhere, so that its worker may end.
func (s *State) Gone() bool {
	return s.Pod == nil && s.Cleaned && s.Purged && len(s.InFlight) == 0 &&
		len(s.Runtime.Sandboxes) == 0 && len(s.Runtime.Containers) == 0
}
