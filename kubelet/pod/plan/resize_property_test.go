package plan

import (
	"encoding/json"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"pgregory.net/rapid"

	"flyball.dev/kubelet/cri"
)

// What world knows of resizes. Memory stands for all resources: it is the one that kills when it is
// changed in the wrong order.

func drawSizes(t *rapid.T, p *v1.Pod) {
	for _, c := range allContainers(p) {
		setMemory(c, rapid.Int64Range(1, 5).Draw(t, "memory"))
		if rapid.IntRange(0, 2).Draw(t, "resize policy") == 0 {
			c.ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer}}
		}
	}
}

func allContainers(p *v1.Pod) []*v1.Container {
	var list []*v1.Container
	for i := range p.Spec.InitContainers {
		list = append(list, &p.Spec.InitContainers[i])
	}
	for i := range p.Spec.Containers {
		list = append(list, &p.Spec.Containers[i])
	}
	return list
}

func setMemory(c *v1.Container, bytes int64) {
	c.Resources.Limits = v1.ResourceList{v1.ResourceMemory: *resource.NewQuantity(bytes, resource.BinarySI)}
}

func memoryOfPod(p *v1.Pod) int64 {
	var sum int64
	for _, c := range allContainers(p) {
		sum = max(sum, 0) + c.Resources.Limits.Memory().Value()
	}
	return sum
}

// resize grants the Pod other sizes.
func (w *world) resize(t *rapid.T) {
	p := w.state.Pod
	if p == nil || p.DeletionTimestamp != nil || podutil.IsPodPhaseTerminal(p.Status.Phase) {
		return
	}
	p = p.DeepCopy()
	p.Generation++
	for _, c := range allContainers(p) {
		if rapid.Bool().Draw(t, "this one") {
			setMemory(c, rapid.Int64Range(1, 5).Draw(t, "memory"))
		}
	}
	w.logf("the Pod is resized, generation %d", p.Generation)
	w.state.Pod, w.state.Last = p, p
	w.state.Allocation = AllocationOf(p, p.Generation)
	w.state.Wanted = map[string]cri.Resources{}
	for _, c := range allContainers(p) {
		w.state.Wanted[c.Name] = cri.Resources{Memory: c.Resources.Limits.Memory().Value()}
	}
	delete(w.state.Failures, SlotResize)
}

// madeWith gives a new container the size that was allocated when its start began.
func (w *world) madeWith(c *cri.Container) {
	r, ok := w.sizes[c.Name]
	if !ok {
		return
	}
	raw, err := json.Marshal(cri.CreatedResources{Container: r})
	if err != nil {
		w.broken("%v", err)
	}
	c.Annotations["flyball.dev/resources"] = string(raw)
	c.Resources = &cri.Resources{Memory: r.Limits.Memory().Value()}
	if c.Resources.Memory > w.cgroup {
		w.broken("%s is made with %d, its Pod has %d", c.Name, c.Resources.Memory, w.cgroup)
	}
}

func (w *world) resizeContainer(a ResizeContainer) {
	for i := range w.state.Runtime.Containers {
		if c := &w.state.Runtime.Containers[i]; c.ID == a.ID {
			has := a.Resources
			c.Resources = &has
		}
	}
	w.checkSizes()
}

func (w *world) checkSizes() {
	for _, c := range w.alive("") {
		if c.State == cri.Running && c.Resources != nil && c.Resources.Memory > w.cgroup {
			w.broken("%s has %d, its Pod has %d", c.Name, c.Resources.Memory, w.cgroup)
		}
	}
}

// checkResized compares sizes with the allocation once things have settled.
func (w *world) checkResized() {
	s := &w.state
	if !s.Allocation.Resized() || podutil.IsPodPhaseTerminal(s.Pod.Status.Phase) {
		return
	}
	if w.cgroup != memoryOfPod(s.Pod) {
		w.broken("the Pod has %d, and is allocated %d", w.cgroup, memoryOfPod(s.Pod))
	}
	for _, c := range w.alive("") {
		spec, _ := cri.FindContainer(s.Pod, c.Name)
		want := spec.Resources.Limits.Memory().Value()
		if c.Resources.Memory != want {
			w.broken("%s has %d, and is allocated %d", c.Name, c.Resources.Memory, want)
		}
		created := cri.ParseInfo(c.Annotations).Created
		restarts := slices.ContainsFunc(spec.ResizePolicy, func(p v1.ContainerResizePolicy) bool {
			return p.RestartPolicy == v1.RestartContainer
		})
		if restarts && created.Container.Limits.Memory().Value() != want {
			w.broken("%s was not restarted to get %d", c.Name, want)
		}
	}
	for _, c := range s.Status.Conditions {
		if c.Type == v1.PodResizeInProgress {
			w.broken("the resize is in progress for ever")
		}
	}
}
