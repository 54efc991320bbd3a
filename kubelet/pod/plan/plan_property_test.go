package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"

	"flyball.dev/kubelet/cri"
)

// TestPlanConverges throws at a Pod what can happen to one, in any order, and then lets things
// settle: what runs must be what the Pod wants, whatever the agent forgot on the way. The
// invariants are checked by world.
func TestPlanConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(drawPod(t), nil)
		w.broken = func(format string, args ...any) {
			t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(w.trace, "\n"))
		}
		if rapid.Bool().Draw(t, "runs already") {
			w.settle()
			w.resize(t)
		}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			w.trouble(t)
		}
		if !w.settle() {
			w.broken("it does not settle")
		}
		w.checkSettled()
		w.delete()
		if !w.settle() {
			w.broken("it does not settle after the deletion")
		}
		if !w.state.Gone() {
			w.broken("something is left after the deletion: %+v", w.state.Runtime)
		}
	})
}

func drawPod(t *rapid.T) *v1.Pod {
	return testPod(func(p *v1.Pod) {
		p.Spec.RestartPolicy = rapid.SampledFrom([]v1.RestartPolicy{
			v1.RestartPolicyAlways, v1.RestartPolicyOnFailure, v1.RestartPolicyNever,
		}).Draw(t, "policy")
		if rapid.Bool().Draw(t, "two") {
			p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: "other"})
		}
		if rapid.Bool().Draw(t, "hooks") {
			p.Spec.Containers[0].Lifecycle = &v1.Lifecycle{
				PostStart: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 1}},
				PreStop:   &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 1}},
			}
		}
		for i, kind := range rapid.SliceOfN(rapid.Bool(), 0, 3).Draw(t, "inits") {
			c := v1.Container{Name: fmt.Sprintf("init%d", i)}
			if kind {
				c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyAlways)
			}
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		}
		drawRestartAll(t, p)
		drawSizes(t, p)
	})
}

// drawRestartAll makes some ends restart all containers.
func drawRestartAll(t *rapid.T, p *v1.Pod) {
	if !rapid.Bool().Draw(t, "restart all") {
		return
	}
	for _, c := range allContainers(p) {
		switch rapid.IntRange(0, 3).Draw(t, "rule") {
		case 0:
			restartAllOn(c)
		case 1: // whatever else stops it, too
			restartAllOn(c)
			c.RestartPolicyRules[0].ExitCodes = &v1.ContainerRestartRuleOnExitCodes{
				Operator: v1.ContainerRestartRuleOnExitCodesOpNotIn, Values: []int32{0, 1},
			}
		}
	}
}

// trouble is one step in the life of the Pod.
func (w *world) trouble(t *rapid.T) {
	switch rapid.SampledFrom([]string{
		"sync", "sync", "sync", "complete", "complete", "complete", "complete", "fail", "exit", "time",
		"sandbox", "forget", "liveness", "delete", "vanish", "unknown", "halfway", "metadata", "resize", "terminate",
	}).Draw(t, "step") {
	case "sync":
		w.sync()
	case "complete", "fail":
		if slots := w.slots(); len(slots) > 0 {
			w.failing = rapid.IntRange(0, 9).Draw(t, "luck") == 0
			w.complete(rapid.SampledFrom(slots).Draw(t, "slot"))
			w.failing = false
		}
	case "exit":
		if alive := w.alive(""); len(alive) > 0 {
			w.exit(rapid.SampledFrom(alive).Draw(t, "who").ID, rapid.SampledFrom([]int32{0, 1, 42}).Draw(t, "code"))
		}
	case "unknown":
		if alive := w.alive(""); len(alive) > 0 {
			id := rapid.SampledFrom(alive).Draw(t, "who").ID
			for i := range w.state.Runtime.Containers {
				if w.state.Runtime.Containers[i].ID == id {
					w.state.Runtime.Containers[i].State = cri.Unknown
				}
			}
		}
	case "time":
		w.now = w.now.Add(time.Duration(rapid.IntRange(1, 700).Draw(t, "seconds")) * time.Second)
	case "sandbox":
		if len(w.state.Runtime.Sandboxes) > 0 {
			w.logf("the sandbox dies")
			w.state.Runtime.Sandboxes[0].Ready = false
		}
	case "forget":
		w.logf("the agent forgets")
		w.forget()
	case "halfway":
		w.halfway()
	case "liveness":
		for _, c := range w.alive("") {
			w.state.Probes[c.Name] = cri.Probed{ContainerID: c.ID, Started: true, Failed: "liveness"}
		}
	case "resize":
		w.resize(t)
	case "terminate":
		if rapid.IntRange(0, 9).Draw(t, "luck") == 0 {
			w.terminate(t)
		}
	case "metadata":
		w.state.Stale = true
	case "delete":
		if rapid.IntRange(0, 9).Draw(t, "luck") == 0 {
			w.delete()
		}
	case "vanish":
		if rapid.IntRange(0, 19).Draw(t, "luck") == 0 {
			w.logf("the Pod vanishes from the API server")
			w.state.Pod = nil
		}
	}
}

// halfway kills the agent between creating and starting a container.
func (w *world) halfway() {
	for _, slot := range w.slots() {
		if a, ok := w.state.InFlight[slot].(StartContainer); ok {
			w.logf("killed while starting %s", a.Name)
			w.start(a, cri.Created)
			break
		}
	}
	w.forget()
}

// terminate has the node end the Pod, as the worker takes such a decision.
func (w *world) terminate(t *rapid.T) {
	if w.state.Pod == nil || w.state.Termination != nil || podutil.IsPodPhaseTerminal(w.state.Pod.Status.Phase) {
		return
	}
	w.logf("the node ends the Pod")
	w.state.Termination = &Termination{Reason: "Evicted", Message: "memory is low", Disruption: "memory is low"}
	if rapid.Bool().Draw(t, "short") {
		w.state.Termination.GracePeriodSeconds = ptr.To[int64](1)
	}
}

func (w *world) delete() {
	if w.state.Pod == nil || w.state.Pod.DeletionTimestamp != nil {
		return
	}
	w.logf("the Pod is deleted")
	w.state.Pod = w.state.Pod.DeepCopy()
	w.state.Pod.DeletionTimestamp = &metav1.Time{Time: w.now.Add(30 * time.Second)}
	w.state.Pod.DeletionGracePeriodSeconds = ptr.To[int64](30)
	w.state.Last = w.state.Pod
}

// drawnNever says whether a container has a policy of its own, Never: rules want one.
func drawnNever(p *v1.Pod) bool {
	return slices.ContainsFunc(allContainers(p), func(c *v1.Container) bool {
		return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyNever
	})
}

// checkSettled compares what runs with what the Pod wants.
func (w *world) checkSettled() {
	if w.state.Pod == nil {
		if !w.state.Gone() {
			w.broken("something is left of a Pod that is gone: %+v", w.state.Runtime)
		}
		return
	}
	switch st := w.state.Pod.Status; st.Phase {
	case v1.PodSucceeded, v1.PodFailed:
		if len(w.alive("")) > 0 || !w.state.Cleaned {
			w.broken("the Pod has ended (%s), but something runs", st.Phase)
		}
		if w.terminated && (st.Phase != v1.PodFailed || st.Reason != "Evicted") {
			w.broken("the node ended the Pod, and it is %s because of %q", st.Phase, st.Reason)
		}
		if w.state.Pod.Spec.RestartPolicy == v1.RestartPolicyAlways && !drawnNever(w.state.Pod) && !w.terminated {
			w.broken("a Pod that restarts always has ended")
		}
	case v1.PodRunning:
		if w.terminated {
			w.broken("the Pod runs, although the node decided to end it")
		}
		if w.state.Pod.Spec.RestartPolicy == v1.RestartPolicyAlways && !drawnNever(w.state.Pod) {
			for i := range w.state.Pod.Spec.Containers {
				if n := len(w.alive(w.state.Pod.Spec.Containers[i].Name)); n != 1 {
					w.broken("%d instances of %s run", n, w.state.Pod.Spec.Containers[i].Name)
				}
			}
		}
		for i := range w.state.Pod.Spec.InitContainers {
			if c := &w.state.Pod.Spec.InitContainers[i]; isSidecar(c) && len(w.alive(c.Name)) != 1 {
				w.broken("sidecar %s does not run", c.Name)
			}
		}
	default:
		w.broken("the Pod is %q in the end: %+v", st.Phase, st)
	}
	w.checkResized()
	for _, c := range w.alive("") {
		if w.outdated[c.ID] {
			w.broken("%s runs on, although all containers were to restart", c.ID)
		}
	}
	dead := map[string]int{}
	for _, c := range w.state.Runtime.Containers {
		if c.State == cri.Exited {
			dead[c.Name]++
		}
		if dead[c.Name] > 1 {
			w.broken("%d dead instances of %s are kept", dead[c.Name], c.Name)
		}
	}
}
