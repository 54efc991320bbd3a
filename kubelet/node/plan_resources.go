package node

import (
	"strings"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Memory and disk are reserved for the host: Pods may not request them, and a pressure condition
// says when less is available. The amounts are upstream's default eviction thresholds, but no Pod
// is evicted: the cgroup of all Pods keeps them from the memory, and the scheduler and admission
// from the disk.
const (
	memoryReserved = 100 << 20 // bytes
	diskReserved   = 0.10      // of the file system
)

// Reserved is what Pods may not request of a capacity.
func Reserved(capacity v1.ResourceList) v1.ResourceList {
	disk := int64(diskReserved * float64(capacity.StorageEphemeral().Value()))
	return v1.ResourceList{
		v1.ResourceMemory:           *resource.NewQuantity(min(memoryReserved, capacity.Memory().Value()), resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(disk, resource.BinarySI),
	}
}

// Allocatable is what Pods may request: the capacity less what is reserved, and less the memory
// that is preallocated as huge pages.
func Allocatable(capacity v1.ResourceList) v1.ResourceList {
	a := capacity.DeepCopy()
	memory, disk := *a.Memory(), *a.StorageEphemeral()
	reserved := Reserved(capacity)
	memory.Sub(*reserved.Memory())
	disk.Sub(*reserved.StorageEphemeral())
	for name, size := range capacity {
		if strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			memory.Sub(size)
		}
	}
	if memory.Sign() < 0 {
		memory.Set(0)
	}
	a[v1.ResourceMemory], a[v1.ResourceEphemeralStorage] = memory, disk
	return a
}

// setResources sets ours and keeps those of others (device plugins, extended resources that an
// administrator patched in). Huge pages of a size that the kernel no longer has are removed.
func setResources(s *v1.NodeStatus, capacity v1.ResourceList) {
	for name := range s.Capacity {
		if _, ours := capacity[name]; !ours && strings.HasPrefix(string(name), v1.ResourceHugePagesPrefix) {
			delete(s.Capacity, name)
			delete(s.Allocatable, name)
		}
	}
	s.Capacity = lo.Assign(s.Capacity, capacity)
	s.Allocatable = lo.Assign(s.Allocatable, Allocatable(capacity))
	for name, q := range s.Capacity {
		if _, ok := s.Allocatable[name]; !ok {
			s.Allocatable[name] = q.DeepCopy()
		}
	}
}
