package plan

import (
	"time"

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
