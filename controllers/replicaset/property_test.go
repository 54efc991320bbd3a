package replicaset

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/util/consistency"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/action"
	"flyball.dev/controllers/internal/expectations"
	"flyball.dev/controllers/internal/kinds"
)

// cluster is an API server with one ReplicaSet and its namespace's Pods, seen through a cache that
// is late. Pods become ready, fail, linger and vanish; people change labels and create Pods of
// their own.
type cluster struct {
	*rapid.T
	set     *appsv1.ReplicaSet
	tracker *expectations.Tracker
	version int
	stored  map[string]*corev1.Pod // what is
	cached  map[string]*corev1.Pod // what the cache shows
	events  []change               // what the cache has yet to see
	seen    int                    // the version that the cache has reached
}

type change struct {
	version int
	name    string
	pod     *corev1.Pod // nil: removed
	ours    bool
}

// LastStoreSyncResourceVersion implements consistency.LastSyncRVGetter.
func (c *cluster) LastStoreSyncResourceVersion() string { return strconv.Itoa(c.seen) }

func newCluster(t *rapid.T) *cluster {
	set := replicaSet(0)
	c := &cluster{T: t, set: set, stored: map[string]*corev1.Pod{}, cached: map[string]*corev1.Pod{}, version: 1, seen: 1}
	c.tracker = expectations.New(map[schema.GroupResource]consistency.LastSyncRVGetter{kinds.Pods().Resource: c})
	return c
}

func (c *cluster) write(name string, pod *corev1.Pod, ours bool) {
	c.version++
	if pod == nil {
		delete(c.stored, name)
	} else {
		pod.ResourceVersion = strconv.Itoa(c.version)
		c.stored[name] = pod
	}
	c.events = append(c.events, change{c.version, name, pod.DeepCopy(), ours})
}

func (c *cluster) deliver(n int) {
	for _, e := range c.events[:n] {
		if e.pod == nil {
			delete(c.cached, e.name)
		} else {
			c.cached[e.name] = e.pod
		}
		c.seen = e.version
	}
	c.events = c.events[n:]
}

func (c *cluster) create(refs []metav1.OwnerReference, labels map[string]string, ours bool) *corev1.Pod {
	name := fmt.Sprintf("pod-%d", c.version)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: types.UID("uid-" + name), Labels: labels, OwnerReferences: refs},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	c.write(name, p, ours)
	return p
}

// remove is what a DELETE does: a Pod with a node lingers, one without goes at once.
func (c *cluster) remove(name string, ours bool) {
	p := c.stored[name]
	if p == nil {
		return
	}
	if p.Spec.NodeName == "" {
		c.write(name, nil, ours)
		return
	}
	p = p.DeepCopy()
	p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1000, 0)}
	c.write(name, p, ours)
}

func (c *cluster) active() []*corev1.Pod {
	var active []*corev1.Pod
	for _, p := range c.stored {
		if controller.IsPodActive(p) && metav1.IsControlledBy(p, c.set) && p.Labels["app"] == "web" {
			active = append(active, p)
		}
	}
	return active
}

// reconcile is one Reconcile: it plans on the cache and carries out what the API server accepts. It
// says whether it did anything.
func (c *cluster) reconcile() bool {
	key := client.ObjectKeyFromObject(c.set)
	if !c.tracker.Satisfied(key) {
		return false
	}
	state := State{ReplicaSet: c.set, Now: metav1.Unix(2000, 0)}
	for _, name := range sets.List(sets.KeySet(c.cached)) {
		p := c.cached[name]
		if ref := metav1.GetControllerOf(p); ref == nil || ref.UID == c.set.UID {
			state.Pods = append(state.Pods, p)
		}
	}
	state.Deleting = c.tracker.Deleting(key, state.Pods)
	plan := NewPlan(state)
	want, surprised := int(*c.set.Spec.Replicas), c.surprised()
	for _, step := range plan.Actions {
		switch a := step.(type) {
		case action.Adopt:
			if !c.setOwner(a.Object, *metav1.NewControllerRef(c.set, setKind)) {
				return true
			}
		case action.Release:
			if !metav1.IsControlledBy(a.Object, c.set) {
				c.Fatalf("released %s, which was never ours", a.Object.GetName())
			}
			if !c.setOwner(a.Object) {
				return true
			}
		case Create:
			c.createAll(a.Count)
			if after := len(c.active()); !surprised && after > want {
				c.Fatalf("created too many: %d Pods for %d wanted", after, want)
			}
		case Delete:
			c.deleteAll(key, a.Pods, want)
		default:
			c.Fatalf("unexpected action %#v", step)
		}
	}
	return len(plan.Actions) > 0
}

func (c *cluster) setOwner(pod metav1.Object, refs ...metav1.OwnerReference) bool {
	current := c.stored[pod.GetName()]
	if current == nil || current.ResourceVersion != pod.GetResourceVersion() {
		return false // conflict: the rest of the plan is dropped
	}
	after := current.DeepCopy()
	after.OwnerReferences = refs
	c.write(pod.GetName(), after, true)
	c.tracker.Wrote(c.set, kinds.Pods().Resource, after)
	return true
}

func (c *cluster) createAll(count int) {
	for range count {
		if rapid.IntRange(0, 9).Draw(c.T, "quota") == 0 {
			return // the rest of the slow start is skipped
		}
		p := c.create([]metav1.OwnerReference{*metav1.NewControllerRef(c.set, setKind)}, map[string]string{"app": "web"}, true)
		c.tracker.Wrote(c.set, kinds.Pods().Resource, p)
	}
}

func (c *cluster) deleteAll(key types.NamespacedName, pods []*corev1.Pod, want int) {
	for _, p := range pods {
		if !metav1.IsControlledBy(p, c.set) {
			adopted := c.stored[p.Name]
			if adopted == nil || !metav1.IsControlledBy(adopted, c.set) {
				c.Fatalf("deleted %s, which is not ours", p.Name)
			}
		}
		c.remove(p.Name, true)
		c.tracker.Deleted(key, p.UID)
	}
	if left := len(c.active()); !c.surprised() && left < want {
		c.Fatalf("deleted too many: %d Pods left of %d wanted", left, want)
	}
}

// surprised says whether others did something that the cache does not show yet. Only then may
// numbers come out wrong.
func (c *cluster) surprised() bool {
	for _, e := range c.events {
		if !e.ours {
			return true
		}
	}
	return false
}

// any is one of the stored Pods, nil if there is none.
func (c *cluster) any() *corev1.Pod {
	if len(c.stored) == 0 {
		return nil
	}
	names := sets.List(sets.KeySet(c.stored))
	return c.stored[rapid.SampledFrom(names).Draw(c.T, "pod")].DeepCopy()
}

func (c *cluster) others() map[string]func(*rapid.T) {
	label := rapid.SampledFrom([]string{"web", "other"})
	return map[string]func(*rapid.T){
		"deliver":   func(t *rapid.T) { c.deliver(rapid.IntRange(0, len(c.events)).Draw(t, "events")) },
		"reconcile": func(*rapid.T) { c.reconcile() },
		"scale":     func(t *rapid.T) { c.set.Spec.Replicas = new(rapid.Int32Range(0, 6).Draw(t, "replicas")) },
		"kubelet": func(t *rapid.T) {
			p := c.any()
			if p == nil {
				return
			}
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				if p.Status.Phase == corev1.PodFailed {
					return
				}
				p.Spec.NodeName, p.Status.Phase = "node", corev1.PodRunning
			case 1:
				p.Status.Phase = corev1.PodFailed
			case 2: // vanishes, whether deleted or not
				c.write(p.Name, nil, false)
				return
			case 3:
				if p.DeletionTimestamp != nil {
					c.write(p.Name, nil, false)
				}
				return
			}
			c.write(p.Name, p, false)
		},
		"user deletes": func(*rapid.T) {
			if p := c.any(); p != nil {
				c.remove(p.Name, false)
			}
		},
		"user labels": func(t *rapid.T) {
			if p := c.any(); p != nil {
				p.Labels = map[string]string{"app": label.Draw(t, "label")}
				c.write(p.Name, p, false)
			}
		},
		"user creates": func(t *rapid.T) {
			var refs []metav1.OwnerReference
			if rapid.Bool().Draw(t, "owned") {
				stranger := replicaSet(1)
				stranger.UID = "stranger"
				refs = []metav1.OwnerReference{*metav1.NewControllerRef(stranger, setKind)}
			}
			c.create(refs, map[string]string{"app": label.Draw(t, "label")}, false)
		},
	}
}

// TestProperty: whatever happens in whatever order, the loop never has more Pods than wanted by its
// own doing, never deletes what is not its own, and gets to the wanted number once the world holds
// still.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newCluster(t)
		t.Repeat(c.others())
		for range 100 {
			c.deliver(len(c.events))
			if !c.reconcile() && len(c.events) == 0 {
				break
			}
		}
		if have, want := len(c.active()), int(*c.set.Spec.Replicas); have != want {
			t.Fatalf("did not converge: %d Pods, want %d", have, want)
		}
		for _, p := range c.stored {
			ref := metav1.GetControllerOf(p)
			if stranger := ref != nil && ref.UID != c.set.UID; stranger || !controller.IsPodActive(p) {
				continue
			}
			if (p.Labels["app"] == "web") == (ref == nil) {
				t.Fatalf("Pod %s with labels %v is in the wrong hands: %v", p.Name, p.Labels, ref)
			}
		}
	})
}
