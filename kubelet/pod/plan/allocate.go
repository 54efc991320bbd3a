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

// Claim is a resize that a running Pod asks for.
type Claim struct {
	Pod, Now *v1.Pod // with the resources that it asks for, and with those that it is allocated
	Since    time.Time
}

// Pending is why a claim is not granted.
type Pending struct {
	// Reason is Infeasible, or names the resource that is short. The condition says Deferred then.
	Reason, Message string
	// Generation of the Pod that the decision is about.
	Generation int64
}

// resizable are the resources that can change while a Pod runs.
var resizable = []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}

// Allocate decides which claims the node grants beside the allocations of its other Pods, one after
// the other in upstream's order. It returns why it does not grant the others, by UID. Only an
// increase has to fit: a Pod can always take less or as much as before.
func Allocate(claims []Claim, allocatable v1.ResourceList, others []*v1.Pod) map[types.UID]*Pending {
	claims = slices.SortedFunc(slices.Values(claims), inOrder)
	used := lo.SliceToMap(others, func(p *v1.Pod) (types.UID, v1.ResourceList) { return p.UID, requests(p) })
	for _, c := range claims {
		used[c.Now.UID] = requests(c.Now)
	}
	refused := map[types.UID]*Pending{}
	for freed := true; freed; { // a claim may free one resource while it takes another
		freed = false
		var left []Claim
		for _, c := range claims {
			wants := requests(c.Pod)
			if short := shortage(wants, used, c.Now.UID, allocatable); short != nil {
				short.Generation = c.Pod.Generation
				refused[c.Pod.UID], left = short, append(left, c)
				continue
			}
			freed = freed || raises(wants, used[c.Pod.UID])
			used[c.Pod.UID] = wants
			delete(refused, c.Pod.UID)
		}
		claims = left
	}
	return refused
}

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
			r := outOf(name, want, taken, capacity)
			return &Pending{Reason: r.Reason, Message: r.Message}
		}
	}
	return nil
}

// inOrder is the order of decisions: claims without an increase first, then by priority, by quality
// of service, and by waiting time.
func inOrder(a, b Claim) int {
	return cmp.Or(
		TrueFirst(!raises(requests(a.Now), requests(a.Pod)), !raises(requests(b.Now), requests(b.Pod))),
		cmp.Compare(ptr.Deref(b.Pod.Spec.Priority, 0), ptr.Deref(a.Pod.Spec.Priority, 0)),
		TrueFirst(v1qos.GetPodQOS(a.Pod) == v1.PodQOSGuaranteed, v1qos.GetPodQOS(b.Pod) == v1.PodQOSGuaranteed),
		a.Since.Compare(b.Since),
		cmp.Compare(a.Pod.UID, b.Pod.UID),
	)
}

// TrueFirst compares so that true comes before false.
func TrueFirst(a, b bool) int { return cmp.Compare(lo.Ternary(a, 0, 1), lo.Ternary(b, 0, 1)) }

func raises(from, to v1.ResourceList) bool {
	return slices.ContainsFunc(resizable, func(n v1.ResourceName) bool { return amount(n, to) > amount(n, from) })
}
