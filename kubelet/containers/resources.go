package containers

import (
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/kubelet/qos"

	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/pod/plan"
)

// Resources renders the limits of a container that is created.
func Resources(node Node, pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	limits := plan.Limits(pod.Spec.Resources, c.Resources)
	r := linuxResources(node, c.Resources.Requests, limits)
	score := qos.GetContainerOOMScoreAdjust(pod, c, max(node.MemoryCapacity, 1))
	r.OomScoreAdj = max(int64(score), node.LowestOOMScoreAdj)
	wanted := cgroups.Hugepages(limits)
	for _, size := range node.HugepageSizes { // each that the kernel has, nothing if the container asks for none
		r.HugepageLimits = append(r.HugepageLimits, &runtimeapi.HugepageLimit{PageSize: size, Limit: wanted[size]})
	}
	if node.SwapController {
		// Containers do not swap: their memory limit bounds memory and swap together.
		if node.CgroupV2 {
			r.Unified["memory.swap.max"] = "0"
		} else {
			r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
		}
	}
	return r
}

// Update renders the limits of a running container, without those that cannot change.
func Update(node Node, pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	r := Resources(node, pod, c)
	r.HugepageLimits = nil
	return r
}

// linuxResources converts CPU and memory. A container with a limit and no request requests its
// limit.
func linuxResources(node Node, requests, limits v1.ResourceList) *runtimeapi.LinuxContainerResources {
	request, ok := requests[v1.ResourceCPU]
	if !ok {
		request = *limits.Cpu()
	}
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          int64(cgroups.Shares(request.MilliValue())),
		CpuPeriod:          int64(cgroups.QuotaPeriod),
		CpuQuota:           cgroups.Quota(limits.Cpu().MilliValue()),
		MemoryLimitInBytes: limits.Memory().Value(),
	}
	if node.CgroupV2 {
		// The kernel's OOM killer ends all processes of a container, since half a container is of
		// no use.
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}
