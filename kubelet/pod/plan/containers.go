package plan

import (
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// containers starts the containers in order: init containers one after the other, the container
// after a sidecar as soon as the sidecar has started, then the regular containers. Without a
// sandbox ("") it makes the images ready.
func (p *planner) containers(sandboxID string) {
	for c := range podutil.ContainerIter(&p.Pod.Spec, podutil.EphemeralContainers) {
		if inst, ok := p.newest(c.Name); !ok || inst.State == cri.Created {
			p.start(c, sandboxID) // never restarted
		}
	}
	if !p.initContainers(sandboxID) {
		return
	}
	for c := range podutil.ContainerIter(&p.Pod.Spec, podutil.Containers) {
		// Upstream starts containers one by one, and users rely on it: a postStart hook holds the
		// following containers back.
		if starting := p.regular(c, sandboxID); starting && HasPostStart(c) {
			return
		}
	}
}

// regular keeps a regular container running, and says whether it is starting.
func (p *planner) regular(c *v1.Container, sandboxID string) bool {
	if inst, ok := p.newestIn(sandboxID, c.Name); ok && inst.Alive() {
		p.check(c, inst, "Container")
		return p.busy(slotStart(c.Name))
	}
	if ended, ok := p.newest(c.Name); ok && ended.State == cri.Exited && !p.superseded(ended) && !p.restarts(c, ended) {
		return false
	}
	if !p.start(c, sandboxID) {
		return false
	}
	// A container that cannot start does not hold others back.
	_, noImage := p.Failures[slotImage(c.Name)]
	_, failed := p.Failures[slotStart(c.Name)]
	return p.busy(slotStart(c.Name)) || !noImage && !failed
}

// initContainers says whether all init containers are done. The furthest one that was created in
// this sandbox shows how far the Pod has come: those before it are done, except sidecars, which
// keep running.
func (p *planner) initContainers(sandboxID string) bool {
	inits, initialized := p.Pod.Spec.InitContainers, p.initialized(sandboxID)
	next := len(inits)
	for next > 0 && !initialized {
		if _, created := p.newestIn(sandboxID, inits[next-1].Name); created {
			break
		}
		next--
	}
	through := true
	for i := range inits[:next] {
		furthest := i == next-1 && !initialized
		switch c := &inits[i]; {
		case isSidecar(c):
			started := p.sidecar(c, sandboxID)
			through = started || !furthest
		case furthest:
			through = p.initContainer(c, sandboxID)
		}
	}
	if through && next < len(inits) {
		p.start(&inits[next], sandboxID)
		return false
	}
	return through
}

// sidecar keeps a restartable init container running, and says whether it has started.
func (p *planner) sidecar(c *v1.Container, sandboxID string) bool {
	inst, ok := p.newestIn(sandboxID, c.Name)
	if !ok || !inst.Alive() {
		p.start(c, sandboxID)
		return false
	}
	p.check(c, inst, "Init container")
	return p.started(c, inst)
}

// initContainer says whether the furthest init container is done, and restarts it if it failed. If
// it must not restart, the Pod is over, see endOf.
func (p *planner) initContainer(c *v1.Container, sandboxID string) bool {
	inst, _ := p.newestIn(sandboxID, c.Name)
	switch {
	case inst.State == cri.Exited && inst.ExitCode == 0 && !p.busy(slotStart(c.Name)):
		return true
	case inst.State == cri.Unknown:
		p.check(c, inst, "Init container")
	case inst.State != cri.Running:
		p.start(c, sandboxID)
	}
	return false
}

// start plans the next step towards a running container: remove a container that never started,
// wait for the back-off, pull the image, create and start. It says whether the container is
// starting and does not wait for a back-off.
func (p *planner) start(c *v1.Container, sandboxID string) bool {
	if p.busy(slotStart(c.Name)) {
		return true
	}
	next := StartContainer{Name: c.Name, SandboxID: sandboxID, AllRestarts: p.allRestarts(), Reason: "it has not run yet"}
	if last, ok := p.newest(c.Name); ok {
		switch {
		case last.State == cri.Created:
			p.do(RemoveContainer{last.ID, last.Name, "it was created, but never started"})
			return true
		case last.Alive():
			return true // in an old sandbox; renewSandbox stops it
		}
		var at time.Time
		next.BackOff, at = p.backOff(last)
		if p.now.Before(at) {
			p.at(at)
			if !p.BackOff[c.Name].Equal(at) {
				p.actions = append(p.actions, ReportBackOff{c.Name, at, Reason(endedHow(last))})
			}
			return false
		}
		next.Attempt, next.Reason = last.Attempt+1, Reason(endedHow(last))
		if p.superseded(last) {
			next.Reason = reasonAllRestart
		}
	} else if attempt := lostAttempt(p.Pod, c.Name); attempt > 0 {
		next.Attempt, next.Reason = attempt, "the runtime has lost it"
	}
	image, ok := p.Images[c.Name]
	if !ok {
		p.do(PullImage{c.Name, next.Reason})
		return true
	}
	grown := !p.Allocation.Resized() || p.Grown == p.Allocation.Generation
	if sandboxID != "" && p.Mounted && grown {
		next.ImageRef = image
		p.do(next)
	}
	return true
}

// lostAttempt returns the attempt that follows those in the status, when the runtime has none. The
// status may have counted the loss already, see reporter.missing.
func lostAttempt(pod *v1.Pod, name string) uint32 {
	st := ptr.Deref(cri.FindStatus(pod, name), v1.ContainerStatus{})
	return uint32(st.RestartCount) + lo.Ternary[uint32](st.ContainerID != "", 1, 0)
}
