package plan

import (
	"fmt"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// The back-off of restarts, see the documentation of restartPolicy: 10 s, doubled with each restart
// up to five minutes, reset after ten minutes of running.
const (
	backOffFirst = 10 * time.Second
	backOffMax   = 300 * time.Second
	backOffReset = 10 * time.Minute

	// AnnotationBackOff counts the restarts in a row that led to an instance. The attempt does not
	// say it: it never decreases.
	AnnotationBackOff = "flyball.dev/back-off"
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

// check ends a running container whose definition or resources changed, whose probe failed, or that
// the runtime has lost.
func (p *planner) check(c *v1.Container, inst cri.Container, kind string) {
	if p.busy(slotStart(c.Name)) {
		return // its postStart hook runs
	}
	if begun, ok := p.Stopping[inst.ID]; ok {
		p.stop(inst, begun, true)
		return
	}
	want := Stopping{Since: p.now, Grace: p.grace(inst)}
	policy := ptr.Deref(c.RestartPolicy, v1.ContainerRestartPolicy(p.Pod.Spec.RestartPolicy))
	again := policy != v1.ContainerRestartPolicyNever
	hash := inst.Annotations[cri.AnnotationHash]
	result := p.result(inst)
	switch {
	case inst.State == cri.Unknown:
		want.Reason = "the runtime does not know whether it runs"
		want.Message = fmt.Sprintf("%s is in %q state, try killing it before restart", kind, inst.State)
		again = false // the message is complete
	case hash != "" && p.Hashes[c.Name] != "" && hash != p.Hashes[c.Name]:
		want.Reason, want.Restart, again = "its definition changed", true, true
		want.Message = fmt.Sprintf("%s %s definition changed", kind, c.Name)
	case p.mustRestart(inst):
		want.Reason, want.Restart, again = "its resources changed", true, false
		want.Message = fmt.Sprintf("Container %s resize requires restart", c.Name)
	case result.Failed != "":
		want.Reason = Reason("its " + result.Failed + " probe failed")
		want.Message = fmt.Sprintf("%s %s failed %s probe", kind, c.Name, result.Failed)
		if g := result.TerminationGracePeriodSeconds; g != nil && p.Pod.DeletionGracePeriodSeconds == nil {
			want.Grace = time.Duration(*g) * time.Second
		}
	default:
		return
	}
	if again {
		want.Message += ", will be restarted"
	}
	p.stop(inst, want, true)
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

// backOff returns how many restarts in a row the successor of an ended container makes, and when it
// may start.
func backOff(ended cri.Container) (int, time.Time) {
	restarts, err := strconv.Atoi(ended.Annotations[AnnotationBackOff])
	if err != nil || (!ended.StartedAt.IsZero() && ended.FinishedAt.Sub(ended.StartedAt) >= backOffReset) {
		restarts = 0
	}
	return restarts + 1, ended.FinishedAt.Add(backOffDelay(restarts))
}

func backOffDelay(restarts int) time.Duration {
	if restarts == 0 {
		return 0
	}
	return min(backOffFirst<<min(restarts-1, 10), backOffMax)
}

func endedHow(c cri.Container) string {
	return fmt.Sprintf("attempt %d ended with exit code %d", c.Attempt, c.ExitCode)
}

// lostAttempt returns the attempt that follows those in the status, when the runtime has none. The
// status may have counted the loss already, see reporter.missing.
func lostAttempt(pod *v1.Pod, name string) uint32 {
	switch st := cri.FindStatus(pod, name); {
	case st == nil:
		return 0
	case st.ContainerID != "":
		return uint32(st.RestartCount) + 1
	default:
		return uint32(st.RestartCount)
	}
}
