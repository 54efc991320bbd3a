package plan

import (
	"cmp"
	"time"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
)

// MinGrace is the least time between SIGTERM and SIGKILL, as with upstream's kubelet.
const MinGrace = 2 * time.Second

// Plan returns the next actions for a Pod, and when to plan again if nothing happens before; zero
// means not at all.
func Plan(s State, now time.Time) ([]Action, time.Time) {
	p := &planner{State: s, now: now, taken: map[string]bool{}}
	if e, over := endOf(&s, now); over {
		p.end(e)
	} else {
		p.run()
	}
	p.deleteMirror()
	return p.actions, p.next
}

type planner struct {
	State
	now     time.Time
	actions []Action
	taken   map[string]bool
	next    time.Time
}

// run keeps the Pod running. Volumes, sandbox and images become ready side by side; a container
// starts when it has all three.
func (p *planner) run() {
	switch {
	case !p.Mounted:
		p.do(MountVolumes{"the Pod is to run here"})
	case p.Stale:
		p.do(MountVolumes{"labels or annotations changed"})
	}
	sb, usable := p.Sandbox()
	if !usable {
		p.renewSandbox()
		sb = cri.Sandbox{}
	}
	if !usable || !p.restartAll() {
		p.resize()
		p.containers(sb.ID)
	}
	p.collect()
	if at, ok := deadlineOf(&p.State); ok {
		p.at(at)
	}
}

// renewSandbox creates the first sandbox, or replaces a lost one. Everything in the lost sandbox
// ends before, so that no container runs twice and its network is released.
func (p *planner) renewSandbox() {
	waiting := false
	for _, c := range p.Runtime.Containers {
		if c.Alive() {
			p.stop(c, Stopping{Since: p.now, Grace: p.grace(c), Reason: "its sandbox is lost"}, true)
		}
		waiting = waiting || c.Alive() || p.busy(slotStart(c.Name))
	}
	for i, sb := range p.Runtime.Sandboxes {
		if !p.Stopped[sb.ID] && (sb.Ready || i == 0) {
			if !waiting {
				p.do(StopSandbox{sb.ID, "the sandbox is not usable any more"})
			}
			waiting = true
		}
	}
	if waiting {
		return
	}
	create := CreateSandbox{Reason: "the Pod has no sandbox"}
	if len(p.Runtime.Sandboxes) > 0 {
		create = CreateSandbox{Attempt: p.Runtime.NewestSandbox().Attempt + 1, Replaces: true, Reason: "the sandbox was lost"}
	}
	p.do(create)
}

// collect removes what nothing needs any more: containers that were created and never started, dead
// containers except the last one of each name, and replaced sandboxes without containers.
func (p *planner) collect() {
	newest, dead, inUse := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, c := range p.Runtime.Containers { // newest first
		first := !newest[c.Name]
		newest[c.Name] = true
		inUse[c.SandboxID] = true
		switch {
		case c.Alive():
		case first && (c.State == cri.Created || p.busy(slotStart(c.Name))): // it is starting, see start
		case c.State == cri.Exited && !dead[c.Name]:
			dead[c.Name] = true
		default:
			p.do(RemoveContainer{c.ID, c.Name, "a newer instance has replaced it"})
		}
	}
	for i, sb := range p.Runtime.Sandboxes {
		if i > 0 && !inUse[sb.ID] {
			p.do(RemoveSandbox{sb.ID, "a newer sandbox has replaced it"})
		}
	}
}

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
	var seconds *int64
	if p.Last != nil {
		seconds = cmp.Or(p.Last.DeletionGracePeriodSeconds, p.Last.Spec.TerminationGracePeriodSeconds)
	} else {
		info := cri.ParseInfo(c.Annotations)
		seconds = cmp.Or(info.DeletionGracePeriod, info.TerminationGracePeriod)
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

// do plans an action unless its slot is taken or its pause after a failure is not over.
func (p *planner) do(a Action) {
	if !p.busy(Slot(a)) {
		p.replace(a)
	}
}

// replace plans an action in place of the one in its slot.
func (p *planner) replace(a Action) {
	slot := Slot(a)
	if f, ok := p.Failures[slot]; ok && p.now.Before(f.RetryAt) {
		p.at(f.RetryAt)
		return
	}
	p.taken[slot] = true
	p.actions = append(p.actions, a)
}

func (p *planner) busy(slot string) bool { return p.InFlight[slot] != nil || p.taken[slot] }

// at has the next plan made at a time, or earlier.
func (p *planner) at(t time.Time) {
	if p.next.IsZero() || t.Before(p.next) {
		p.next = t
	}
}
