package cgroups

import (
	"path"
	"strings"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
)

// The kernel's bounds, from kernel/sched/sched.h and kernel/sched/core.c.
const (
	minShares = 2
	maxShares = 262144
	minQuota  = 1000

	// QuotaPeriod is the period of CPU quotas, in microseconds.
	QuotaPeriod = 100000
)

// unlimited is the number of a limit that is not set.
const unlimited = -1

// Shares converts a CPU request to cpu.shares. No request is the least there is.
func Shares(milliCPU int64) uint64 {
	return uint64(min(max(milliCPU*1024/1000, minShares), maxShares))
}

// Quota converts a CPU limit to microseconds per QuotaPeriod; 0 is no limit.
func Quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*QuotaPeriod/1000, minQuota)
}

// Limits of one cgroup. Zero values leave the kernel's setting alone.
type Limits struct {
	Shares uint64
	// Quota in microseconds per QuotaPeriod.
	Quota int64
	// Memory in bytes.
	Memory int64
	// Hugepages in bytes by page size in the kernel's notation, for example 2MB.
	Hugepages map[string]uint64
}

// above leaves out the limits that would lower what a cgroup has.
func (l Limits) above(shares, quota, memory int64) Limits {
	if int64(l.Shares) <= shares {
		l.Shares = 0
	}
	if quota == unlimited || l.Quota <= quota {
		l.Quota = 0
	}
	if memory == unlimited || l.Memory <= memory {
		l.Memory = 0
	}
	return l
}

// Hugepages are the huge pages of a list, in bytes by page size in the kernel's notation, for
// example 2MB.
func Hugepages(list v1.ResourceList) map[string]uint64 {
	out := map[string]uint64{}
	for name, q := range list {
		size, err := v1helper.HugePageSizeFromResourceName(name)
		if err != nil {
			continue // another resource
		}
		if unit, err := v1helper.HugePageUnitSizeFromByteSize(size.Value()); err == nil {
			out[unit] += uint64(q.Value())
		}
	}
	return out
}

// nodeLimits bound all Pods together, so that they leave to the node what it reserves for itself.
func nodeLimits(allocatable v1.ResourceList) Limits {
	return Limits{Shares: Shares(allocatable.Cpu().MilliValue()), Memory: allocatable.Memory().Value()}
}

const podPrefix = "pod"

// classes are the quality-of-service classes. Guaranteed Pods lie in the top cgroup, beside the
// cgroups of the other two.
var classes = []v1.PodQOSClass{v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort}

// classPath is the cgroup in which Pods of the class are.
func classPath(root string, class v1.PodQOSClass) string {
	if class == v1.PodQOSGuaranteed {
		return path.Join("/", root)
	}
	return path.Join("/", root, strings.ToLower(string(class)))
}

func podPath(root string, class v1.PodQOSClass, uid types.UID) string {
	return path.Join(classPath(root, class), podPrefix+string(uid))
}

// sumShares are the shares of a class: as many as its Pods have together.
func sumShares(pods []uint64) uint64 {
	return min(max(lo.Sum(pods), minShares), maxShares)
}
