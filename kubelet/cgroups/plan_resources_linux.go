package cgroups

import (
	"sort"

	libcgroups "github.com/opencontainers/cgroups"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	"k8s.io/utils/ptr"
)

// podLimits are the limits that the spec asks for. CPU and memory of the whole Pod are limited only
// if each of its containers is, or the Pod itself.
func podLimits(pod *v1.Pod) Limits {
	const limitCPU, memoryQoS = true, false
	c := cm.ResourceConfigForPod(pod, limitCPU, QuotaPeriod, memoryQoS, "")
	return Limits{
		Shares: *c.CPUShares, Quota: ptr.Deref(c.CPUQuota, 0), Memory: ptr.Deref(c.Memory, 0),
		Hugepages: Hugepages(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})),
	}
}

// resources converts limits for the cgroup library. It leaves out those that the host has no
// controller for: they must not keep the Pod from running.
func (l Limits) resources(v2 bool, controllers sets.Set[string]) *libcgroups.Resources {
	// The runtime limits devices, in the container's own cgroup.
	r := &libcgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	if controllers.Has("cpu") {
		if v2 {
			r.CpuWeight = libcgroups.ConvertCPUSharesToCgroupV2Value(l.Shares)
		} else {
			r.CpuShares = l.Shares
		}
		if l.Quota != 0 {
			r.CpuQuota, r.CpuPeriod = l.Quota, QuotaPeriod
		}
	}
	if controllers.Has("memory") {
		r.Memory = l.Memory
	}
	if controllers.Has("hugetlb") {
		for _, size := range libcgroups.HugePageSizes() {
			if limit, ok := l.Hugepages[size]; ok {
				r.HugetlbLimit = append(r.HugetlbLimit, &libcgroups.HugepageLimit{Pagesize: size, Limit: limit})
			}
		}
	}
	return r
}

// sharesOf is the inverse of the conversion to weights: the least shares that have this weight.
func sharesOf(weight uint64) uint64 {
	return minShares + uint64(sort.Search(maxShares-minShares, func(i int) bool {
		return libcgroups.ConvertCPUSharesToCgroupV2Value(minShares+uint64(i)) >= weight
	}))
}
