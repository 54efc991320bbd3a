package plan

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	v1qos "k8s.io/kubernetes/pkg/apis/core/v1/helper/qos"
	"k8s.io/utils/ptr"
)

// Claim is the wish of a running Pod for other resources.
type Claim struct {
	// Pod with what it wants, Now with what it is allocated.
	Pod, Now *v1.Pod
	// Since when it waits.
	Since time.Time
}

// Pending is why a claim is not granted.
type Pending struct {
	// Reason is Infeasible, or what is short, which makes the condition's reason Deferred.
	Reason, Message string
	// Generation of the Pod that was decided about.
	Generation int64
}

// resizable are the resources that can change while a Pod runs.
var resizable = []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}

// Allocate decides which claims the node grants beside what its other Pods have, one after the
// other in upstream's order, each granted one counted. It returns why the others are not, by UID.
// Only what a claim raises must fit: to take less, or as much as before, is always possible.
func Allocate(claims []Claim, allocatable v1.ResourceList, others []*v1.Pod) map[types.UID]*Pending {
	claims = slices.SortedFunc(slices.Values(claims), inOrder)
	used := map[types.UID]v1.ResourceList{}
	for _, p := range others {
		used[p.UID] = requests(p)
	}
	for _, c := range claims {
		used[c.Now.UID] = requests(c.Now)
	}
	refused := map[types.UID]*Pending{}
	for freed := true; freed; { // what one gives back while it takes something else, another may want
		freed = false
		var left []Claim
		for _, c := range claims {
			wants := requests(c.Pod)
			if short := shortage(wants, used, c.Now.UID, allocatable); short != nil {
				short.Generation = c.Pod.Generation
				refused[c.Pod.UID] = short
				left = append(left, c)
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

// shortage says what keeps a Pod from getting what it wants.
func shortage(wants v1.ResourceList, used map[types.UID]v1.ResourceList, uid types.UID, allocatable v1.ResourceList) *Pending {
	for _, name := range resizable {
		want, room := amount(name, wants), amount(name, allocatable)
		if want <= amount(name, used[uid]) {
			continue
		}
		if want > room {
			return &Pending{Reason: v1.PodReasonInfeasible, Message: fmt.Sprintf(
				"Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, want, room)}
		}
		var taken int64
		for other, list := range used {
			if other != uid {
				taken += amount(name, list)
			}
		}
		if want > room-taken {
			r := outOf(name, want, taken, room)
			return &Pending{Reason: r.Reason, Message: r.Message}
		}
	}
	return nil
}

// inOrder is the order in which claims are decided: what asks for no more first, then by priority,
// by quality of service, and by how long they wait.
func inOrder(a, b Claim) int {
	return cmp.Or(
		first(b.raises(), a.raises()),
		cmp.Compare(ptr.Deref(b.Pod.Spec.Priority, 0), ptr.Deref(a.Pod.Spec.Priority, 0)),
		first(v1qos.GetPodQOS(a.Pod) == v1.PodQOSGuaranteed, v1qos.GetPodQOS(b.Pod) == v1.PodQOSGuaranteed),
		a.Since.Compare(b.Since),
		cmp.Compare(a.Pod.UID, b.Pod.UID),
	)
}

func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

// raises says whether the claim asks for more of anything.
func (c Claim) raises() bool { return raises(requests(c.Now), requests(c.Pod)) }

func raises(from, to v1.ResourceList) bool {
	return slices.ContainsFunc(resizable, func(n v1.ResourceName) bool { return amount(n, to) > amount(n, from) })
}
