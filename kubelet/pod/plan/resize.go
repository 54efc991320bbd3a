package plan

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// resize brings the cgroups of a running Pod to its allocation, step by step: the cgroup of the Pod
// grows, the containers change, those that get less memory first, and the cgroup of the Pod
// shrinks. So the containers never have more than their Pod, which the kernel would refuse or
// answer with an OOM kill.
//
// A container whose resizePolicy wants a restart is stopped by check, and starts again with its new
// resources.
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
	if len(unsized) > 0 {
		c := unsized[0] // one after the other
		p.do(ResizeContainer{ID: c.ID, Name: c.Name, Resources: c.wanted, Reason: "its resources changed"})
		return
	}
	if p.Sized != generation && !p.awaitsRestart() {
		p.do(ShrinkCgroup{generation, "the containers were resized"})
	}
}

// starting says whether a sandbox or a container is being created, perhaps with the resources from
// before the resize.
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

// unsizedContainer is a running container whose resources differ from its allocation.
type unsizedContainer struct {
	cri.Container
	has, wanted cri.Resources
}

func (c unsizedContainer) shrinks() bool {
	return c.wanted.Memory != 0 && (c.has.Memory <= 0 || c.wanted.Memory < c.has.Memory)
}

// unsized returns the running containers to change in place, those that shrink first.
func (s *State) unsized() []unsizedContainer {
	var list []unsizedContainer
	for _, c := range s.Runtime.Containers {
		wanted, ok := s.Wanted[c.Name]
		if has := s.has(c); ok && c.State == cri.Running && !has.Satisfies(wanted) && !s.mustRestart(c) {
			list = append(list, unsizedContainer{c, has, wanted})
		}
	}
	slices.SortStableFunc(list, func(a, b unsizedContainer) int {
		return cmp.Or(CompareTrueFirst(a.shrinks(), b.shrinks()), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// has returns the resources of a container: those it was given last or, after a restart of the
// agent, those that the runtime reports.
func (s *State) has(c cri.Container) cri.Resources {
	if given, ok := s.Given[c.ID]; ok {
		return given
	}
	return ptr.Deref(c.Resources, cri.Resources{}) // if it does not report, once more does no harm
}

// mustRestart says whether a running container gets its allocation only by a restart, because of
// its resizePolicy. Such a container still has the resources that it was created with.
func (s *State) mustRestart(c cri.Container) bool {
	spec, _ := cri.FindContainer(s.Pod, c.Name)
	if !s.Allocation.Resized() || c.State != cri.Running || spec == nil {
		return false
	}
	created := cri.ParseInfo(c.Annotations).Created
	return created != nil && slices.ContainsFunc(spec.ResizePolicy, func(p v1.ContainerResizePolicy) bool {
		limits, was := cri.Limits(s.Pod.Spec.Resources, spec.Resources), cri.Limits(created.Pod, created.Container)
		return p.RestartPolicy == v1.RestartContainer && (amount(p.ResourceName, limits) != amount(p.ResourceName, was) ||
			amount(p.ResourceName, spec.Resources.Requests) != amount(p.ResourceName, created.Container.Requests))
	})
}

func (s *State) awaitsRestart() bool { return slices.ContainsFunc(s.Runtime.Containers, s.mustRestart) }

// resizing says whether some resources of the Pod differ from its allocation.
func (s *State) resizing() bool {
	return s.Allocation.Resized() &&
		(s.Sized != s.Allocation.Generation || s.awaitsRestart() || len(s.unsized()) > 0)
}
