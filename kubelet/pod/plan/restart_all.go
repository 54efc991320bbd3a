package plan

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// A rule with the action RestartAllContainers (KEP-5532) makes a Pod begin again in place: all init
// and regular containers end, then everything starts as in a new Pod, in the same sandbox and on
// the same volumes. Ephemeral containers keep running.
//
// Upstream's kubelet removes the old containers to distinguish them from the new ones. Here each
// instance carries how often all containers had restarted before it was created, so the runtime's
// list alone says what is left to do, even after the agent was killed. The last instances stay, for
// lastState and logs --previous.

// AnnotationAllRestarts counts how often all containers had restarted when an instance was created;
// without it never.
const AnnotationAllRestarts = "flyball.dev/all-restarts"

const reasonAllRestart Reason = "all containers of the Pod restart"

// restartAll ends the instances from before the restart of all containers, and says whether any
// still runs. As in upstream's kubelet there is neither a grace period nor a preStop hook, because
// the Pod stays. Sidecars outlive the regular containers, as they always do.
func (p *planner) restartAll() bool {
	restarts, waiting := p.allRestarts(), false
	for c := range podutil.ContainerIter(&p.Pod.Spec, lasting) {
		slot := slotStart(c.Name)
		if a, ok := p.InFlight[slot].(StartContainer); ok && a.AllRestarts < restarts {
			p.actions = append(p.actions, Cancel{slot, reasonAllRestart})
			waiting = true
		}
	}
	left := p.leftOver()
	isRegular := func(c cri.Container) bool { return sidecarIndex(p.Pod, c.Name) < 0 }
	sidecarsToo := !slices.ContainsFunc(left, isRegular)
	for _, c := range left {
		if sidecarsToo || isRegular(c) {
			message := fmt.Sprintf("Stopping container %s, all containers of the Pod restart", c.Name)
			p.stop(c, Stopping{Since: p.now, Reason: reasonAllRestart, Message: message}, true)
		}
	}
	return waiting || len(left) > 0
}

// leftOver are the instances from before the restart of all containers that still run.
func (s *State) leftOver() []cri.Container {
	return lo.Filter(s.Runtime.Containers, func(c cri.Container, _ int) bool { return c.Alive() && s.superseded(c) })
}

// superseded says whether an instance is from before the restart of all containers.
func (s *State) superseded(c cri.Container) bool {
	return s.restartable(c.Name) != nil && allRestartsOf(c) < s.allRestarts()
}

// restartingAll says whether all containers have to restart and none has restarted yet.
func (s *State) restartingAll() bool {
	restarts := s.allRestarts()
	return restarts > 0 && !slices.ContainsFunc(s.Runtime.Containers, func(c cri.Container) bool {
		return s.restartable(c.Name) != nil && allRestartsOf(c) == restarts
	})
}

// allRestarts counts how often all containers have restarted, including a restart that is under
// way.
func (s *State) allRestarts() int {
	if s.Pod == nil || !podutil.AllContainersCouldRestart(&s.Pod.Spec) {
		return 0
	}
	restarts := 0
	for _, c := range s.Runtime.Containers {
		if spec := s.restartable(c.Name); spec != nil {
			restarts = max(restarts, allRestartsOf(c)+lo.Ternary(s.restartsAll(spec, c), 1, 0))
		}
	}
	return restarts
}

// restartsAll says whether the exit of an instance makes all containers restart. The exit of a
// sidecar does not once the other containers are done: so the Pod itself ends.
func (s *State) restartsAll(spec *v1.Container, c cri.Container) bool {
	rule, ok := podutil.FindMatchingContainerRestartRule(*spec, c.ExitCode)
	return c.State == cri.Exited && ok && rule.Action == v1.ContainerRestartRuleActionRestartAllContainers &&
		(!isSidecar(spec) || !s.doneBefore(allRestartsOf(c), c.FinishedAt))
}

// doneBefore says whether the containers of a round of restarts, sidecars excepted, were done for
// good at a time.
func (s *State) doneBefore(restarts int, at time.Time) bool {
	ended := func(spec *v1.Container) (cri.Container, bool) {
		c, ok := s.Runtime.Find(func(c cri.Container) bool {
			return c.Name == spec.Name && allRestartsOf(c) == restarts
		})
		return c, ok && c.State == cri.Exited && !c.FinishedAt.After(at) && !s.restarts(spec, c)
	}
	for spec := range podutil.ContainerIter(&s.Pod.Spec, podutil.InitContainers) {
		if c, ok := ended(spec); ok && !isSidecar(spec) && c.ExitCode != 0 {
			return true
		}
	}
	for spec := range podutil.ContainerIter(&s.Pod.Spec, podutil.Containers) {
		if _, ok := ended(spec); !ok {
			return false
		}
	}
	return true
}

// restartable returns the spec of an init or regular container, nil for any other.
func (s *State) restartable(name string) *v1.Container {
	if c, kind := cri.FindContainer(s.Pod, name); kind&lasting != 0 {
		return c
	}
	return nil
}

func allRestartsOf(c cri.Container) int {
	restarts, _ := strconv.Atoi(c.Annotations[AnnotationAllRestarts]) // 0 without the annotation
	return restarts
}
