package pressure

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/kubernetes/pkg/kubelet/eviction/api"
	kubetypes "k8s.io/kubernetes/pkg/kubelet/types"

	"flyball.dev/kubelet/pod/plan"
)

// Pod is a Pod of the node and what it uses.
type Pod struct {
	*v1.Pod
	Ending bool   // the kubelet stops the Pod already
	Usage  *Usage // nil if nothing was measured
}

// Usage is what a Pod uses of the node's resources.
type Usage struct {
	Memory, PIDs int64 // Memory is the working set in bytes
	Containers   []ContainerUsage
	Volumes      Files // in the Pod's volumes on the node's disk
}

// ContainerUsage is what one container uses of a Pod's Usage.
type ContainerUsage struct {
	Name         string
	Memory       int64
	Rootfs, Logs Files
}

// Files is what files take of a disk.
type Files struct{ Bytes, Inodes int64 }

// isCritical reports whether the kubelet does not evict the Pod.
func isCritical(pod *v1.Pod) bool {
	return plan.IsStatic(pod) || kubetypes.IsCriticalPodBasedOnPriority(corev1.PodPriority(pod))
}

// rank sorts the Pods in the order in which the kubelet evicts them: Pods without measurements
// first, then Pods that use more than they request, then by priority, then by the use above the
// request. For PIDs, which nobody requests, the priority comes first.
func rank(pods []Pod, s api.Signal, l Layout) []Pod {
	above := func(p Pod) int64 { return used(p, s, l) - requested(p.Pod, s) }
	return slices.SortedStableFunc(slices.Values(pods), func(a, b Pod) int {
		unmeasured := plan.CompareTrueFirst(a.Usage == nil, b.Usage == nil)
		byPriority := cmp.Compare(corev1.PodPriority(a.Pod), corev1.PodPriority(b.Pod))
		byAmount := cmp.Compare(above(b), above(a))
		if s == api.SignalPIDAvailable {
			return cmp.Or(byPriority, unmeasured, byAmount, cmp.Compare(a.UID, b.UID))
		}
		return cmp.Or(unmeasured, plan.CompareTrueFirst(above(a) > 0, above(b) > 0), byPriority, byAmount, cmp.Compare(a.UID, b.UID))
	})
}

func requested(pod *v1.Pod, s api.Signal) int64 {
	q := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})[meanings[s].resource]
	return q.Value()
}

func used(p Pod, s api.Signal, l Layout) int64 {
	if p.Usage == nil {
		return 0
	}
	switch meanings[s].resource {
	case v1.ResourceMemory:
		return p.Usage.Memory
	case pids:
		return p.Usage.PIDs
	}
	sum := Files{}
	add := func(f Files) { sum.Bytes, sum.Inodes = sum.Bytes+f.Bytes, sum.Inodes+f.Inodes }
	layers := l == OneFilesystem || isNodeFs(s) == (l == SplitImages)
	rest := l == OneFilesystem || isNodeFs(s)
	for _, c := range p.Usage.Containers {
		if layers {
			add(c.Rootfs)
		}
		if rest {
			add(c.Logs)
		}
	}
	if rest {
		add(p.Usage.Volumes)
	}
	if meanings[s].resource == inodes {
		return sum.Inodes
	}
	return sum.Bytes
}
