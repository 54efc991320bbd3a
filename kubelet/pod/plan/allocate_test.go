package plan

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"pgregory.net/rapid"
)

func amounts(milliCPU, mebibytes int64) v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:    *resource.NewMilliQuantity(milliCPU, resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(mebibytes<<20, resource.BinarySI),
	}
}

// sized is a Pod of one container that requests something.
func sized(uid types.UID, milliCPU, mebibytes int64) *v1.Pod {
	return testPod(func(p *v1.Pod) {
		p.UID, p.Generation = uid, 2
		p.Spec.Containers[0].Resources.Requests = amounts(milliCPU, mebibytes)
	})
}

func resize(uid types.UID, from, to int64) Resize {
	return Resize{Desired: sized(uid, to, 100), Allocated: sized(uid, from, 100), Since: epoch}
}

func TestAllocate(t *testing.T) {
	node := amounts(1000, 1000)
	deferred := func(requested, used int64) *Pending {
		return &Pending{Reason: "OutOfcpu", Generation: 2, Message: fmt.Sprintf(
			"Node didn't have enough resource: cpu, requested: %d, used: %d, capacity: 1000", requested, used)}
	}
	cases := map[string]struct {
		reason  string
		resizes []Resize
		others  []*v1.Pod
		want    map[types.UID]*Pending
	}{
		"Fits": {
			reason:  "what fits beside the others is granted; what the Pod has already is not counted twice",
			resizes: []Resize{resize("a", 400, 600)},
			others:  []*v1.Pod{sized("a", 400, 100), sized("b", 400, 100)},
		},
		"Deferred": {
			reason:  "what does not fit now may fit later",
			resizes: []Resize{resize("a", 400, 700)},
			others:  []*v1.Pod{sized("a", 400, 100), sized("b", 400, 100)},
			want:    map[types.UID]*Pending{"a": deferred(700, 400)},
		},
		"Infeasible": {
			reason:  "what the whole node does not have never fits",
			resizes: []Resize{resize("a", 400, 1100)},
			want: map[types.UID]*Pending{"a": {
				Reason: v1.PodReasonInfeasible, Generation: 2,
				Message: "Node didn't have enough capacity: cpu, requested: 1100, capacity: 1000",
			}},
		},
		"Shrinking": {
			reason:  "to take less is possible also on a node that has promised too much",
			resizes: []Resize{resize("a", 900, 800)},
			others:  []*v1.Pod{sized("b", 900, 100)},
		},
		"ShrinkingFirst": {
			reason:  "what one resize frees another one gets, in whatever order they came",
			resizes: []Resize{resize("a", 100, 600), resize("b", 900, 400)},
		},
		"OneMoreOneLess": {
			reason:  "a resize is granted as a whole or not at all",
			resizes: []Resize{{Desired: sized("a", 900, 10), Allocated: sized("a", 100, 500), Since: epoch}},
			others:  []*v1.Pod{sized("b", 200, 100)},
			want:    map[types.UID]*Pending{"a": deferred(900, 200)},
		},
		"Priority": {
			reason: "the more important Pod comes first",
			resizes: []Resize{resize("a", 100, 600), func() Resize {
				c := resize("b", 100, 600)
				c.Desired.Spec.Priority = ptr.To[int32](10)
				return c
			}()},
			want: map[types.UID]*Pending{"a": deferred(600, 600)},
		},
		"Guaranteed": {
			reason: "of the same priority, a Guaranteed Pod comes first",
			resizes: []Resize{resize("a", 100, 600), func() Resize {
				c := resize("b", 100, 600)
				c.Desired.Spec.Containers[0].Resources.Limits = c.Desired.Spec.Containers[0].Resources.Requests
				return c
			}()},
			want: map[types.UID]*Pending{"a": deferred(600, 600)},
		},
		"Age": {
			reason: "then the one that has waited longest",
			resizes: []Resize{resize("a", 100, 600), func() Resize {
				c := resize("b", 100, 600)
				c.Since = epoch.Add(-time.Minute)
				return c
			}()},
			want: map[types.UID]*Pending{"a": deferred(600, 600)},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := Allocate(tc.resizes, node, tc.others)
			if tc.want == nil {
				tc.want = map[types.UID]*Pending{}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

// TestAllocateNeverExceeds draws nodes full of Pods that want other sizes. Nothing that was in
// bounds may leave them, what is refused must not fit, and a second decision must not grant what
// the first refused.
func TestAllocateNeverExceeds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		node := amounts(1000, 1000)
		size := rapid.Int64Range(0, 400)
		var others []*v1.Pod
		var resizes []Resize
		for i := range rapid.IntRange(1, 6).Draw(t, "pods") {
			uid := types.UID(fmt.Sprintf("p%d", i))
			now := sized(uid, size.Draw(t, "cpu"), size.Draw(t, "memory"))
			others = append(others, now)
			if rapid.Bool().Draw(t, "resizes") {
				resizes = append(resizes, Resize{Allocated: now, Desired: sized(uid, size.Draw(t, "cpu wanted"), size.Draw(t, "memory wanted")), Since: epoch})
			}
		}
		before := totals(others)
		refused := Allocate(resizes, node, others)
		for _, c := range resizes {
			for i, p := range others {
				if p.UID == c.Desired.UID && refused[p.UID] == nil {
					others[i] = c.Desired
				}
			}
		}
		after := totals(others)
		for _, name := range resizable {
			if amount(name, after) > max(amount(name, node), amount(name, before)) {
				t.Fatalf("%s is exceeded: %v, before it was %v", name, after, before)
			}
		}
		var left []Resize
		for _, c := range resizes {
			if refused[c.Desired.UID] != nil {
				left = append(left, c)
			}
		}
		if again := Allocate(left, node, others); len(again) != len(left) {
			t.Fatalf("of %d resizes that were refused %d fit after all", len(left), len(left)-len(again))
		}
	})
}

func totals(pods []*v1.Pod) v1.ResourceList {
	sum := v1.ResourceList{}
	for _, p := range pods {
		for name, q := range requests(p) {
			total := sum[name]
			total.Add(q)
			sum[name] = total
		}
	}
	return sum
}
