package plan

import (
	"fmt"
	"strconv"
	"time"

	"github.com/samber/lo"
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

// restarts says whether the restart policy of the Pod or the container, or a rule, wants an ended
// container to run again.
func (s *State) restarts(spec *v1.Container, ended cri.Container) bool {
	return s.Stopping[ended.ID].Restart || podutil.ContainerShouldRestart(*spec, s.Pod.Spec, ended.ExitCode)
}

// backOff returns how many restarts in a row the successor of an ended container makes, and when it
// may start. A container that was stopped to get other resources starts at once and counts anew.
// When all containers restart none waits, as in upstream's kubelet, and the count stays.
func (s *State) backOff(ended cri.Container) (int, time.Time) {
	restarts, at := backOff(ended)
	switch {
	case s.superseded(ended):
		return restarts - 1, time.Time{}
	case s.Stopping[ended.ID].Restart:
		return 0, ended.FinishedAt
	}
	return restarts, at
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
	return lo.Ternary(restarts == 0, 0, min(backOffFirst<<min(max(restarts-1, 0), 10), backOffMax))
}

func endedHow(c cri.Container) string {
	return fmt.Sprintf("attempt %d ended with exit code %d", c.Attempt, c.ExitCode)
}
