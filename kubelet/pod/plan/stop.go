package plan

import (
	"cmp"
	"time"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
)

// stop ends one container: first its preStop hook, then, if it is due, SIGTERM, and SIGKILL at the
// end of the grace period. A shorter grace period replaces the current one.
func (p *planner) stop(c cri.Container, want Stopping, due bool) {
	if begun, ok := p.Stopping[c.ID]; ok {
		want.Since, want.HookDone, want.Restart = begun.Since, begun.HookDone, want.Restart || begun.Restart
	}
	want.Message = cmp.Or(want.Message, "Stopping container "+c.Name)
	deadline := want.Since.Add(want.Grace)
	inFlight := p.InFlight[slotStop(c.ID)]
	if PreStopOf(p.Last, c) != nil && !want.HookDone && want.Grace > 0 && p.now.Before(deadline) {
		p.at(deadline)
		if _, ok := inFlight.(StopContainer); !ok {
			p.do(RunPreStop{ID: c.ID, Name: c.Name, Deadline: deadline, Begun: want, Reason: want.Reason})
		}
		return
	}
	if !due && p.now.Before(deadline) {
		p.at(deadline)
		return
	}
	if a, ok := inFlight.(StopContainer); ok && !deadline.Before(a.Deadline.Add(-time.Second)) {
		return
	}
	p.replace(StopContainer{ID: c.ID, Name: c.Name, Deadline: deadline, Begun: want, Reason: want.Reason})
}

// grace returns the grace period of a container: the Pod's or, if the Pod is not known any more,
// the one that the container was created with.
func (p *planner) grace(c cri.Container) time.Duration {
	info := cri.ParseInfo(c.Annotations)
	seconds := cmp.Or(info.DeletionGracePeriod, info.TerminationGracePeriod)
	if p.Last != nil {
		seconds = cmp.Or(p.Last.DeletionGracePeriodSeconds, p.Last.Spec.TerminationGracePeriodSeconds)
	}
	if seconds == nil {
		return MinGrace
	}
	return max(0, time.Duration(*seconds)*time.Second)
}

// PreStopOf returns the preStop hook of a container.
func PreStopOf(pod *v1.Pod, c cri.Container) *v1.LifecycleHandler {
	if pod == nil {
		return cri.ParseInfo(c.Annotations).PreStop
	}
	if spec, _ := cri.FindContainer(pod, c.Name); spec != nil && spec.Lifecycle != nil {
		return spec.Lifecycle.PreStop
	}
	return nil
}
