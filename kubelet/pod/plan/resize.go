package plan

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
)

// resize brings the cgroups of a running Pod to what it is allocated, one step after the other: the
// Pod's cgroup grows, containers are changed, those that get less memory first, and the Pod's
// cgroup shrinks. So at no moment the containers have more than their Pod, which the kernel would
// refuse or answer with an OOM kill.
//
// Containers whose resizePolicy wants a restart are stopped by check, and started again with what
// they are allocated then.
func (p *planner) resize() {
	if !p.Allocation.Resized() || p.starting() {
		return
	}
	generation := p.Allocation.Generation
	if p.Grown != generation {
		p.do(GrowCgroup{generation, "the Pod was resized"})
		return
	}
	unsized := p.unsized()
	if (len(unsized) > 0 || p.Sized != generation) && p.Checked != generation {
		check := CheckMemory{Generation: generation, Reason: "memory limits must not fall below what is used"}
		for _, c := range unsized {
			if c.shrinks() {
				check.Containers = append(check.Containers, ContainerMemory{c.Name, c.ID, c.wanted.Memory})
			}
		}
		p.do(check)
		return
	}
	for _, c := range unsized {
		p.do(ResizeContainer{ID: c.ID, Name: c.Name, Resources: c.wanted, Reason: "its resources changed"})
		return // one after the other
	}
	if p.Sized != generation && !p.awaitsRestart() {
		p.do(ShrinkCgroup{generation, "the containers were resized"})
	}
}

// starting says whether a sandbox or a container is being made, perhaps with the resources that
// were allocated before.
func (p *planner) starting() bool {
	if p.busy(slotSandbox) {
		return true
	}
	for slot, a := range p.InFlight {
		if start, ok := a.(StartContainer); ok && slot == slotStart(start.Name) {
			if c, made := p.newest(start.Name); !made || c.Attempt != start.Attempt || c.State != cri.Running {
				return true
			}
		}
	}
	return false
}

// unsizedContainer is a running container that does not have what it is allocated.
type unsizedContainer struct {
	cri.Container
	has, wanted cri.Resources
}

func (c unsizedContainer) shrinks() bool {
	return c.wanted.Memory != 0 && (c.has.Memory <= 0 || c.wanted.Memory < c.has.Memory)
}

// unsized returns the running containers that are to be changed in place, those that shrink first.
func (s *State) unsized() []unsizedContainer {
	if !s.Allocation.Resized() {
		return nil
	}
	var list []unsizedContainer
	for _, c := range s.Runtime.Containers {
		wanted, ok := s.Wanted[c.Name]
		if has := s.has(c); ok && c.State == cri.Running && !has.Satisfies(wanted) && !s.mustRestart(c) {
			list = append(list, unsizedContainer{c, has, wanted})
		}
	}
	slices.SortStableFunc(list, func(a, b unsizedContainer) int {
		return cmp.Or(first(a.shrinks(), b.shrinks()), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// has is what a container has: what it was given last or, after a restart of the agent, what the
// runtime reports.
func (s *State) has(c cri.Container) cri.Resources {
	if given, ok := s.Given[c.ID]; ok {
		return given
	}
	if c.Resources != nil {
		return *c.Resources
	}
	return cri.Resources{} // it does not report: once more does no harm
}

// mustRestart says whether a running container can get what it is allocated only by a restart, as
// its resizePolicy says. What its resources were before is what it was made with: it gets others by
// a restart alone.
func (s *State) mustRestart(c cri.Container) bool {
	spec := SpecOf(s.Pod, c.Name)
	if !s.Allocation.Resized() || c.State != cri.Running || spec == nil || !restartsOnResize(spec) {
		return false
	}
	created := cri.ParseInfo(c.Labels, c.Annotations).Created
	if created == nil {
		return false
	}
	was := Limits(created.Pod, created.Container)
	limits := Limits(s.Pod.Spec.Resources, spec.Resources)
	for _, p := range spec.ResizePolicy {
		if p.RestartPolicy != v1.RestartContainer {
			continue
		}
		if amount(p.ResourceName, limits) != amount(p.ResourceName, was) ||
			amount(p.ResourceName, spec.Resources.Requests) != amount(p.ResourceName, created.Container.Requests) {
			return true
		}
	}
	return false
}

func restartsOnResize(spec *v1.Container) bool {
	return slices.ContainsFunc(spec.ResizePolicy, func(p v1.ContainerResizePolicy) bool {
		return p.RestartPolicy == v1.RestartContainer
	})
}

func (s *State) awaitsRestart() bool { return slices.ContainsFunc(s.Runtime.Containers, s.mustRestart) }

// resizing says whether something of the Pod is not as allocated yet.
func (s *State) resizing() bool {
	return s.Allocation.Resized() &&
		(s.Sized != s.Allocation.Generation || s.awaitsRestart() || len(s.unsized()) > 0)
}
