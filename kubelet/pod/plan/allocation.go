package plan

import (
	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"

	"flyball.dev/kubelet/cri"
)

// Allocation is what the node has promised to a Pod. It differs from the spec while a resize waits
// for free resources. Everything else (cgroups, containers, what other Pods may have) follows from
// it. A container carries its resources as an annotation. A granted resize is written to a file
// before anything is done about it: the status is written later and lacks promised limits, and the
// runtime's report lacks memory requests.
type Allocation struct {
	// Generation of the Pod that was granted; 0 if it was never resized.
	Generation int64 `json:"generation,omitempty"`
	// Pod are the resources of the Pod as a whole, Containers those of the containers.
	Pod        *v1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]v1.ResourceRequirements `json:"containers"`
}

// AllocationOf returns the allocation that grants the spec.
func AllocationOf(pod *v1.Pod, generation int64) *Allocation {
	a := &Allocation{Generation: generation, Pod: pod.Spec.Resources, Containers: map[string]v1.ResourceRequirements{}}
	for c := range podutil.ContainerIter(&pod.Spec, lasting) {
		a.Containers[c.Name] = c.Resources
	}
	return a
}

// Made returns the allocation of a Pod without a file: the resources that its containers were
// created with, and those of the spec for containers that were not created yet.
func Made(pod *v1.Pod, runtime cri.Pod) *Allocation {
	a := AllocationOf(pod, 0)
	seen := map[string]bool{}
	for _, c := range runtime.Containers { // newest first
		created := cri.ParseInfo(c.Annotations).Created
		if _, ok := a.Containers[c.Name]; ok && !seen[c.Name] && created != nil {
			a.Containers[c.Name], a.Pod = created.Container, created.Pod
		}
		seen[c.Name] = true
	}
	return a
}

// Resized says whether the Pod was ever resized.
func (a *Allocation) Resized() bool { return a != nil && a.Generation > 0 }

// Apply returns the Pod with its allocated resources; the Pod itself if it asks for no others.
func (a *Allocation) Apply(pod *v1.Pod) *v1.Pod {
	if a == nil || a.Grants(pod) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Spec.Resources = a.Pod
	for c := range podutil.ContainerIter(&pod.Spec, lasting) {
		c.Resources = lo.ValueOr(a.Containers, c.Name, c.Resources)
	}
	return pod
}

// Grants says whether the Pod has the resources that it asks for.
func (a *Allocation) Grants(pod *v1.Pod) bool {
	if !apiequality.Semantic.DeepEqual(pod.Spec.Resources, a.Pod) {
		return false
	}
	for c := range podutil.ContainerIter(&pod.Spec, lasting) {
		if !apiequality.Semantic.DeepEqual(c.Resources, lo.ValueOr(a.Containers, c.Name, c.Resources)) {
			return false
		}
	}
	return true
}
