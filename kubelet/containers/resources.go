package containers

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
	"k8s.io/kubernetes/pkg/kubelet/qos"

	"flyball.dev/kubelet/cgroups"
	"flyball.dev/kubelet/pod/plan"
)

// Resources renders the limits of one container that is made.
func Resources(node Node, pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	limits := effectiveLimits(pod, c)
	r := linuxResources(node, c.Resources.Requests, limits)
	r.OomScoreAdj = max(int64(qos.GetContainerOOMScoreAdjust(pod, c, max(node.MemoryCapacity, 1))), node.LowestOOMScoreAdj)
	r.HugepageLimits = hugepageLimits(node.HugepageSizes, limits)
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

// Update renders the limits of one container for a change while it runs. What
// cannot change is left out.
func Update(node Node, pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	r := Resources(node, pod, c)
	r.HugepageLimits = nil
	return r
}

func effectiveLimits(pod *v1.Pod, c *v1.Container) v1.ResourceList {
	return plan.Limits(pod.Spec.Resources, c.Resources)
}

// linuxResources converts CPU and memory. A container with a limit and no
// request has the limit as its request.
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
		// Out of memory, a container dies as a whole: half a container helps nobody.
		r.Unified = map[string]string{"memory.oom.group": "1"}
	}
	return r
}

// hugepageLimits limits every size the kernel has, those that were not asked for to nothing.
func hugepageLimits(sizes []string, limits v1.ResourceList) []*runtimeapi.HugepageLimit {
	wanted := map[string]uint64{}
	for name, q := range limits {
		if size, ok := hugepageSize(name); ok {
			wanted[size] = uint64(q.Value())
		}
	}
	var out []*runtimeapi.HugepageLimit
	for _, size := range sizes {
		out = append(out, &runtimeapi.HugepageLimit{PageSize: size, Limit: wanted[size]})
	}
	return out
}

// hugepageSize turns hugepages-2Mi into 2MB, the kernel's notation.
func hugepageSize(name v1.ResourceName) (string, bool) {
	after, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix)
	if !ok {
		return "", false
	}
	q, err := resource.ParseQuantity(after)
	if err != nil {
		return "", false
	}
	size, err := v1helper.HugePageUnitSizeFromByteSize(q.Value())
	return size, err == nil
}
