package containers

import (
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Node is what of the node enters the rendering. It is the same for all Pods of
// the node and does not change while the agent runs, except for HostDNS.
type Node struct {
	// Name is the name of the Node object.
	Name string
	// IPs are the addresses of the node, the primary one first.
	IPs []netip.Addr
	// Owner is the value of LabelOwner; without one there is no such label.
	Owner string
	// PodLogsDir is the directory below which the runtime writes container logs,
	// commonly /var/log/pods.
	PodLogsDir string
	// SeccompDir is where Localhost seccomp profiles are looked for.
	SeccompDir string

	// ClusterDNS are the name servers of Pods with dnsPolicy ClusterFirst.
	ClusterDNS []netip.Addr
	// ClusterDomain is the DNS domain of the cluster, for example cluster.local.
	ClusterDomain string
	// HostDNS returns the name service of the node itself as it is now, for dnsPolicy Default.
	HostDNS func() HostDNS

	// Allocatable stands in for missing limits in the downward API.
	Allocatable v1.ResourceList
	// MemoryCapacity in bytes: the OOM score of a Burstable container is relative to it.
	MemoryCapacity int64
	// LowestOOMScoreAdj is the lowest oom_score_adj that may be given to a
	// container here: -1000 with CAP_SYS_RESOURCE, else what we run with ourselves.
	LowestOOMScoreAdj int64
	// CgroupV2 says that the unified cgroup hierarchy is in use.
	CgroupV2 bool
	// SwapController says that cgroups can limit swap.
	SwapController bool
	// HugepageSizes are the huge page sizes of the kernel in cgroup notation, for example 2MB.
	HugepageSizes []string
	// RecursiveReadOnly are the runtime handlers that can make mounts recursively
	// read-only; the default one is named "".
	RecursiveReadOnly sets.Set[string]
}

// HostDNS is the name service of a host, without the servers on its loopback.
type HostDNS struct {
	*runtimeapi.DNSConfig
	// Loopback are those servers, if there is no other: Pods on the host's network alone reach them.
	Loopback []string
}
