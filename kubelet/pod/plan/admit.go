package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/utils/ptr"
)

// ReasonNodeAffinity is the reason of a Pod whose node selector or affinity the node does not
// match.
const ReasonNodeAffinity = "NodeAffinity"

// Admit returns why a Pod cannot run on a node beside the others that run there, nil if it can. The
// scheduler has checked most of it already, unless somebody set nodeName. Reasons and messages are
// upstream's. Taints are left to the taint eviction controller, which ends such a Pod in time.
func Admit(pod *v1.Pod, node *v1.Node, allocatable v1.ResourceList, others []*v1.Pod) *Termination {
	if os := pod.Spec.OS; os != nil && os.Name != v1.Linux {
		return Refuse("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}
	sc, features := pod.Spec.SecurityContext, node.Status.Features
	if sc != nil && ptr.Deref(sc.SupplementalGroupsPolicy, "") == v1.SupplementalGroupsPolicyStrict &&
		(features == nil || !ptr.Deref(features.SupplementalGroupsPolicy, false)) {
		return Refuse("SupplementalGroupsPolicyNotSupported", "SupplementalGroupsPolicy=Strict is not supported in this node")
	}
	if r := fit(pod, allocatable, others); r != nil {
		return r
	}
	if matches, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node); err != nil || !matches {
		return Refuse(ReasonNodeAffinity, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector")
	}
	if portTaken(pod, others) {
		return Refuse("NodePorts", "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports")
	}
	return nil
}

// Refuse returns the decision not to admit a Pod.
func Refuse(reason, message string) *Termination {
	return &Termination{Reason: reason, Message: message, Refused: true}
}

// fit compares the Pod's requests with the resources that the others leave.
func fit(pod *v1.Pod, allocatable v1.ResourceList, others []*v1.Pod) *Termination {
	if most := allocatable.Pods().Value(); int64(len(others))+1 > most {
		return outOf(v1.ResourcePods, 1, int64(len(others)), most)
	}
	requested := requests(pod)
	used := lo.Map(others, func(p *v1.Pod, _ int) v1.ResourceList { return requests(p) })
	// The first shortage is reported, of the most common resources first.
	common := []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory, v1.ResourceEphemeralStorage}
	for _, name := range lo.Uniq(append(common, slices.Sorted(maps.Keys(requested))...)) {
		wants, taken, capacity := amount(name, requested), amount(name, used...), amount(name, allocatable)
		_, offered := allocatable[name]
		// The node does not count an extended resource that it does not have.
		if wants > 0 && wants > capacity-taken && (offered || !v1helper.IsExtendedResourceName(name)) {
			return outOf(name, wants, taken, capacity)
		}
	}
	return nil
}

func requests(pod *v1.Pod) v1.ResourceList {
	return resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
}

// amount of a resource in all lists; of CPU in thousandths.
func amount(name v1.ResourceName, lists ...v1.ResourceList) (sum int64) {
	for _, list := range lists {
		if q := list[name]; name == v1.ResourceCPU {
			sum += q.MilliValue()
		} else {
			sum += q.Value()
		}
	}
	return sum
}

func outOf(name v1.ResourceName, requested, used, capacity int64) *Termination {
	return Refuse("OutOf"+string(name), fmt.Sprintf(
		"Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity))
}

func portTaken(pod *v1.Pod, others []*v1.Pod) bool {
	mine := hostPorts(pod)
	return slices.ContainsFunc(others, func(other *v1.Pod) bool {
		return slices.ContainsFunc(hostPorts(other), func(p v1.ContainerPort) bool {
			return slices.ContainsFunc(mine, func(m v1.ContainerPort) bool { return clash(m, p) })
		})
	})
}

func clash(a, b v1.ContainerPort) bool {
	protocol := func(p v1.ContainerPort) v1.Protocol { return cmp.Or(p.Protocol, v1.ProtocolTCP) }
	everywhere := func(p v1.ContainerPort) bool { return p.HostIP == "" || p.HostIP == "0.0.0.0" }
	return a.HostPort == b.HostPort && protocol(a) == protocol(b) && (a.HostIP == b.HostIP || everywhere(a) || everywhere(b))
}

// hostPorts of the containers that stay.
func hostPorts(pod *v1.Pod) []v1.ContainerPort {
	var ports []v1.ContainerPort
	for c, kind := range podutil.ContainerIter(&pod.Spec, lasting) {
		for _, p := range c.Ports {
			if p.HostPort > 0 && (kind == podutil.Containers || isSidecar(c)) {
				ports = append(ports, p)
			}
		}
	}
	return ports
}
