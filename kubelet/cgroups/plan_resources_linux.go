package cgroups

import (
	"sort"

	libcgroups "github.com/opencontainers/cgroups"
)

// resources turns limits into what the cgroup library writes, leaving out what
// the host has no controller for: a limit that cannot be had must not keep the Pod from running.
func (l Limits) resources(v2 bool, has func(controller string) bool) *libcgroups.Resources {
	// Devices are the business of the container's own cgroup.
	r := &libcgroups.Resources{SkipDevices: true, SkipFreezeOnSet: true}
	if has("cpu") {
		if v2 {
			r.CpuWeight = libcgroups.ConvertCPUSharesToCgroupV2Value(l.Shares)
		} else {
			r.CpuShares = l.Shares
		}
		if l.Quota != 0 {
			r.CpuQuota, r.CpuPeriod = l.Quota, QuotaPeriod
		}
	}
	if has("memory") {
		r.Memory = l.Memory
	}
	if has("hugetlb") {
		for _, size := range libcgroups.HugePageSizes() {
			if limit, ok := l.Hugepages[size]; ok {
				r.HugetlbLimit = append(r.HugetlbLimit, &libcgroups.HugepageLimit{Pagesize: size, Limit: limit})
			}
		}
	}
	return r
}

// sharesOf is the inverse of the conversion to weights: the least shares that
// have this weight, which is as exact as a weight can be.
func sharesOf(weight uint64) uint64 {
	return minShares + uint64(sort.Search(maxShares-minShares, func(i int) bool {
		return libcgroups.ConvertCPUSharesToCgroupV2Value(minShares+uint64(i)) >= weight
	}))
}
