package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	v1qos "k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/utils/ptr"
)

// Resize is a change of resources that a running Pod asks for.
type Resize struct {
	Desired   *v1.Pod   // with the resources that the Pod asks for
	Allocated *v1.Pod   // with the resources that it is allocated
	Since     time.Time // when it asked
}

// Pending is why a resize is not granted (yet).
type Pending struct {
	// Reason is Infeasible, or OutOfcpu or OutOfmemory, for which the Pod's condition
	// PodResizePending has the reason Deferred.
	Reason, Message string
	// Generation is the Pod's metadata.generation on which the decision was made.
	Generation int64
}

// resizable are the resources that can change while a Pod runs.
var resizable = []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}

// Allocate grants resizes in the order of compareResizes, as far as the node has room for them
// beside what its other Pods are allocated. others are the node's Pods; for those with a resize,
// Resize.Allocated counts. It returns by Pod UID why a resize is not granted. Only an increase has
// to fit: a Pod can always take less or as much as before.
func Allocate(resizes []Resize, allocatable v1.ResourceList, others []*v1.Pod) map[types.UID]*Pending {
	resizes = slices.SortedFunc(slices.Values(resizes), compareResizes)
	used := lo.SliceToMap(others, func(p *v1.Pod) (types.UID, v1.ResourceList) { return p.UID, requests(p) })
	for _, r := range resizes {
		used[r.Allocated.UID] = requests(r.Allocated)
	}
	pending := map[types.UID]*Pending{}
	for freed := true; freed; { // a resize may free one resource while it takes another
		freed = false
		var left []Resize
		for _, r := range resizes {
			uid, wants := r.Desired.UID, requests(r.Desired)
			if refusal := shortage(wants, used, uid, allocatable); refusal != nil {
				refusal.Generation = r.Desired.Generation
				pending[uid] = refusal
				left = append(left, r)
				continue
			}
			freed = freed || lowers(used[uid], wants)
			used[uid] = wants
			delete(pending, uid)
		}
		resizes = left
	}
	return pending
}

// shortage returns why wants does not fit, or nil. A resource that does not grow always fits.
func shortage(wants v1.ResourceList, used map[types.UID]v1.ResourceList, uid types.UID, allocatable v1.ResourceList) *Pending {
	for _, name := range resizable {
		want, capacity := amount(name, wants), amount(name, allocatable)
		if want <= amount(name, used[uid]) {
			continue
		}
		if want > capacity {
			return &Pending{Reason: v1.PodReasonInfeasible, Message: fmt.Sprintf(
				"Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, want, capacity)}
		}
		taken := amount(name, slices.Collect(maps.Values(used))...) - amount(name, used[uid])
		if want > capacity-taken {
			// The same reason and message as when a new Pod is not admitted.
			t := outOf(name, want, taken, capacity)
			return &Pending{Reason: t.Reason, Message: t.Message}
		}
	}
	return nil
}

// compareResizes puts resizes without an increase first, as upstream; then the highest priority,
// Guaranteed Pods, the longest waiting, and the UID decide.
func compareResizes(a, b Resize) int {
	return cmp.Or(
		CompareTrueFirst(!a.raises(), !b.raises()),
		cmp.Compare(ptr.Deref(b.Desired.Spec.Priority, 0), ptr.Deref(a.Desired.Spec.Priority, 0)),
		CompareTrueFirst(v1qos.GetPodQOS(a.Desired) == v1.PodQOSGuaranteed, v1qos.GetPodQOS(b.Desired) == v1.PodQOSGuaranteed),
		a.Since.Compare(b.Since),
		cmp.Compare(a.Desired.UID, b.Desired.UID),
	)
}

// CompareTrueFirst compares so that true comes before false.
func CompareTrueFirst(a, b bool) int { return cmp.Compare(lo.Ternary(a, 0, 1), lo.Ternary(b, 0, 1)) }

func (r Resize) raises() bool { return lowers(requests(r.Desired), requests(r.Allocated)) }

// lowers reports whether `to` has less of any resizable resource than `from`.
func lowers(from, to v1.ResourceList) bool {
	return slices.ContainsFunc(resizable, func(n v1.ResourceName) bool { return amount(n, to) < amount(n, from) })
}
