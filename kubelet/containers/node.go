package containers

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Node are the inputs that are the same for all Pods of the node. Only the file behind Resolver
// changes while the agent runs.
type Node struct {
	// IPs are the addresses of the node, the primary one first.
	IPs []string
	// Owner is the value of LabelOwner; without one there is no such label.
	Owner string
	// PodLogsDir is the directory of container logs, commonly /var/log/pods.
	PodLogsDir string
	// SeccompDir is the directory of Localhost seccomp profiles.
	SeccompDir string

	// ClusterDNS are the name servers of Pods with dnsPolicy ClusterFirst.
	ClusterDNS []netip.Addr
	// ClusterDomain is the DNS domain of the cluster, for example cluster.local.
	ClusterDomain string
	// Resolver reads the resolv.conf of the host, for dnsPolicy Default. May be nil.
	Resolver *Resolver

	// Allocatable are the limits in the downward API of containers without.
	Allocatable v1.ResourceList
	// MemoryCapacity of the node in bytes: the OOM score of a Burstable container is relative to it.
	MemoryCapacity int64
	// LowestOOMScoreAdj is the lowest oom_score_adj that a container can get: -1000 with
	// CAP_SYS_RESOURCE, else that of this process.
	LowestOOMScoreAdj int64
	// CgroupV2 says that the unified cgroup hierarchy is in use.
	CgroupV2 bool
	// SwapController says that cgroups can limit swap.
	SwapController bool
	// HugepageSizes are the huge page sizes of the kernel in cgroup notation, for example 2MB.
	HugepageSizes []string
	// RecursiveReadOnly are the runtime handlers that can make mounts recursively read-only; "" is
	// the default one.
	RecursiveReadOnly sets.Set[string]
}
