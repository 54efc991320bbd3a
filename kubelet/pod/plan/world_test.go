package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// world is a simulated node with one Pod: a runtime, an API server and an agent that can lose its
// memory. It breaks when an invariant does.
type world struct {
	broken func(format string, args ...any)
	now    time.Time
	state  State
	ids    int
	// failing says that actions of the runtime fail.
	failing bool
	trace   []string
	// cgroup is the memory limit of the Pod's cgroup, sizes what starting containers are made with,
	// by name.
	cgroup, cgroupWanted int64
	sizes                map[string]v1.ResourceRequirements
	// outdated are instances from before an exit that makes all containers restart, by ID.
	outdated map[string]bool
	// terminated says that the API server has a decision of the node to end the Pod.
	terminated bool
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(pod *v1.Pod, broken func(string, ...any)) *world {
	w := &world{broken: broken, now: epoch, sizes: map[string]v1.ResourceRequirements{}, outdated: map[string]bool{}}
	w.state = State{UID: pod.UID, Pod: pod, Last: pod, Hashes: map[string]string{}, Node: Node{IPs: []string{"192.0.2.1"}, RuntimeName: "containerd"}}
	w.cgroup = memoryOfPod(pod)
	w.forget()
	return w
}

// forget is what kill -9 does to the agent. What was under way stops there.
func (w *world) forget() {
	w.state.Memory = NewMemory()
	w.state.Probes = map[string]cri.Probed{}
	if w.state.Pod == nil {
		w.state.Last = nil
	}
}

func (w *world) logf(format string, args ...any) {
	w.trace = append(w.trace, fmt.Sprintf("%s ", w.now.Sub(epoch))+fmt.Sprintf(format, args...))
}

// sync plans once and begins the actions. It says whether there were any.
func (w *world) sync() (bool, time.Time) {
	w.observe()
	actions, next := Plan(w.state, w.now)
	for _, a := range actions {
		w.begin(a)
	}
	reported := w.state.Reported
	w.report()
	return len(actions) > 0 || reported != w.state.Reported, next
}

func (w *world) observe() {
	w.state.NoteEnd(w.now)
	results := map[string]cri.Probed{}
	for _, c := range w.state.Running() {
		r := w.state.Probes[c.Name]
		if r.ContainerID != c.ID {
			r = cri.Probed{ContainerID: c.ID, Started: true, Ready: true}
		}
		results[c.Name] = r
	}
	w.state.Probes = results
}

func (w *world) report() {
	if w.state.Pod == nil {
		return
	}
	was := w.state.Pod.Status.Phase
	st := Status(w.state, w.now)
	if (was == v1.PodSucceeded || was == v1.PodFailed) && st.Phase != was {
		w.broken("phase went from %s to %s", was, st.Phase)
	}
	if (st.Phase == v1.PodSucceeded || st.Phase == v1.PodFailed) && was != st.Phase && len(w.alive("")) > 0 {
		w.broken("phase is %s while containers run", st.Phase)
	}
	w.terminated = w.terminated || recorded(&st) != nil
	w.state.Status = &st
	w.state.Pod = w.state.Pod.DeepCopy()
	w.state.Pod.Status = st
	w.state.Last = w.state.Pod
	if w.state.Cleaned {
		w.state.Reported = true
	}
}

func (w *world) begin(a Action) {
	w.logf("plan %T %+v", a, a)
	switch a := a.(type) {
	case Cancel:
		w.state.GiveUp(w.state.InFlight[a.InSlot]) // ends without effect; complete covers the other outcome
	case StartContainer:
		w.checkStart(a)
		spec, _ := cri.FindContainer(w.state.Pod, a.Name)
		w.sizes[a.Name] = spec.Resources
	case GrowCgroup, ShrinkCgroup:
		w.cgroupWanted = memoryOfPod(w.state.Pod)
	case DeletePod:
		if len(w.alive("")) > 0 || !w.state.Cleaned {
			w.broken("the Pod is deleted from the API server while something is left")
		}
	case CleanUp:
		if len(w.alive("")) > 0 {
			w.broken("volumes are unmounted while containers run")
		}
	}
	w.state.Begin(a)
}

func (w *world) checkStart(a StartContainer) {
	if w.state.Pod == nil || w.state.Pod.DeletionTimestamp != nil {
		w.broken("%s is started after the deletion has begun", a.Name)
	}
	if w.terminated {
		w.broken("%s is started after the node decided to end the Pod", a.Name)
	}
	if !w.state.Mounted {
		w.broken("%s is started without volumes", a.Name)
	}
	for i := range w.state.Pod.Spec.Containers {
		if w.state.Pod.Spec.Containers[i].Name != a.Name || w.state.initialized(a.SandboxID) {
			continue
		}
		for k := range w.state.Pod.Spec.InitContainers {
			spec := &w.state.Pod.Spec.InitContainers[k]
			inst, ok := w.state.newestIn(a.SandboxID, spec.Name)
			if isSidecar(spec) && !ok || !isSidecar(spec) && (!ok || inst.State != cri.Exited || inst.ExitCode != 0) {
				w.broken("%s is started before init container %s is through", a.Name, spec.Name)
			}
		}
	}
}

// complete ends the action in a slot.
func (w *world) complete(slot string) {
	a := w.state.InFlight[slot]
	if w.failing {
		w.logf("fail %T", a)
		w.state.Fail(a, NewFailure(a, "Failing", "failing", w.state.Failures[slot], w.now))
		return
	}
	w.logf("done %T", a)
	w.state.Succeed(a)
	switch a := a.(type) {
	case CreateSandbox:
		w.createSandbox(a)
	case PullImage:
		w.state.Images[a.Name] = "sha256:1"
	case StartContainer:
		w.start(a, cri.Running)
	case StopContainer:
		w.exit(a.ID, 143)
	case GrowCgroup:
		w.cgroup = max(w.cgroup, w.cgroupWanted)
	case ResizeContainer:
		w.resizeContainer(a)
	case ShrinkCgroup:
		w.cgroup = w.cgroupWanted
		w.checkSizes()
	case RemoveContainer:
		w.drop(func(c cri.Container) bool { return c.ID == a.ID })
	case StopSandbox:
		w.stopSandbox(a.ID)
	case RemoveSandbox:
		w.stopSandbox(a.ID)
		w.drop(func(c cri.Container) bool { return c.SandboxID == a.ID })
		w.state.Runtime.Sandboxes = slices.DeleteFunc(w.state.Runtime.Sandboxes, func(s cri.Sandbox) bool { return s.ID == a.ID })
	case DeletePod:
		w.state.Pod = nil
	}
}

func (w *world) id(prefix string) string {
	w.ids++
	return prefix + strconv.Itoa(w.ids)
}

func (w *world) createSandbox(a CreateSandbox) {
	for _, s := range w.state.Runtime.Sandboxes {
		if s.Attempt == a.Attempt {
			w.broken("attempt %d of the sandbox exists", a.Attempt)
		}
	}
	sb := cri.Sandbox{ID: w.id("sb"), Attempt: a.Attempt, Ready: true, IPs: []string{"10.0.0.1"}, CreatedAt: w.now}
	w.state.Runtime.Sandboxes = append([]cri.Sandbox{sb}, w.state.Runtime.Sandboxes...)
}

func (w *world) start(a StartContainer, state cri.ContainerState) {
	if len(w.alive(a.Name)) > 0 {
		w.broken("two instances of %s run", a.Name)
	}
	if a.AllRestarts == w.state.allRestarts() && a.AllRestarts > 0 && len(w.state.leftOver()) > 0 {
		w.broken("%s is started again while something from before runs", a.Name)
	}
	for _, c := range w.state.Runtime.Containers {
		if c.Name == a.Name && c.Attempt == a.Attempt {
			w.broken("attempt %d of %s exists", a.Attempt, a.Name)
		}
	}
	if i := slices.IndexFunc(w.state.Runtime.Sandboxes, func(s cri.Sandbox) bool { return s.ID == a.SandboxID && s.Ready }); i < 0 {
		return // the runtime refuses
	}
	c := cri.Container{
		ID: w.id("c"), Name: a.Name, SandboxID: a.SandboxID, Attempt: a.Attempt, State: state,
		CreatedAt: w.now, StartedAt: w.now, Annotations: map[string]string{
			AnnotationBackOff: strconv.Itoa(a.BackOff), AnnotationAllRestarts: strconv.Itoa(a.AllRestarts),
		},
	}
	w.madeWith(&c)
	w.state.Runtime.Containers = append([]cri.Container{c}, w.state.Runtime.Containers...)
}

func (w *world) exit(id string, code int32) {
	for i := range w.state.Runtime.Containers {
		c := &w.state.Runtime.Containers[i]
		if c.ID == id && c.Alive() {
			w.now = w.now.Add(time.Nanosecond) // no two ends at once
			w.logf("%s exits with %d", c.Name, code)
			c.State, c.ExitCode, c.FinishedAt = cri.Exited, code, w.now
			w.outdate(*c)
		}
	}
}

// outdate notes what must not go on when the end of a container makes all restart. A Pod that is on
// its way down does not begin again.
func (w *world) outdate(ended cri.Container) {
	if w.state.Pod == nil || !w.state.Ending.IsZero() {
		return
	}
	spec, _ := cri.FindContainer(w.state.Pod, ended.Name)
	if rule, ok := podutil.FindMatchingContainerRestartRule(*spec, ended.ExitCode); !ok || rule.Action != v1.ContainerRestartRuleActionRestartAllContainers {
		return
	}
	w.logf("all containers are to restart")
	for _, c := range w.state.Runtime.Containers {
		w.outdated[c.ID] = true
	}
}

func (w *world) stopSandbox(id string) {
	for i := range w.state.Runtime.Sandboxes {
		if w.state.Runtime.Sandboxes[i].ID == id {
			w.state.Runtime.Sandboxes[i].Ready = false
		}
	}
	for _, c := range w.alive("") {
		if c.SandboxID == id {
			w.exit(c.ID, 137)
		}
	}
}

func (w *world) drop(which func(cri.Container) bool) {
	w.state.Runtime.Containers = slices.DeleteFunc(w.state.Runtime.Containers, func(c cri.Container) bool {
		if which(c) && c.Alive() {
			w.broken("%s is removed while it runs", c.Name)
		}
		return which(c)
	})
}

func (w *world) alive(name string) []cri.Container {
	var list []cri.Container
	for _, c := range w.state.Runtime.Containers {
		if c.Alive() && (name == "" || c.Name == name) {
			list = append(list, c)
		}
	}
	return list
}

func (w *world) slots() []string { return slices.Sorted(maps.Keys(w.state.InFlight)) }

// settle lets things take their course without any trouble: what is under way ends, init containers
// succeed, time passes, until nothing happens any more.
func (w *world) settle() bool {
	w.failing = false
	for range 2000 {
		acted, next := w.sync()
		for _, slot := range w.slots() {
			w.complete(slot)
			acted = true
		}
		if w.state.Pod != nil {
			for _, c := range w.alive("") {
				spec, _ := cri.FindContainer(w.state.Pod, c.Name)
				for i := range w.state.Pod.Spec.InitContainers {
					if spec == &w.state.Pod.Spec.InitContainers[i] && !isSidecar(spec) {
						w.exit(c.ID, 0)
						acted = true
					}
				}
			}
		}
		if acted {
			continue
		}
		if next.IsZero() || next.After(w.now.Add(24*time.Hour)) {
			return true
		}
		w.now = next
	}
	return false
}

func testPod(change func(*v1.Pod)) *v1.Pod {
	grace := int64(30)
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "default", UID: "u1"},
		Spec: v1.PodSpec{
			RestartPolicy: v1.RestartPolicyAlways, TerminationGracePeriodSeconds: &grace,
			Containers: []v1.Container{{Name: "main", Image: "flyball.dev/hello:1"}},
		},
		Status: v1.PodStatus{Phase: v1.PodPending},
	}
	if change != nil {
		change(pod)
	}
	return pod
}
