// Package expectations keeps a loop from acting on a cache that does not yet hold the loop's own
// writes.
//
// A loop records in its Tracker what it wrote for which owner, and reconciles that owner again only
// when the cache holds it. Nothing blocks: the watch event of the write enqueues the owner again.
// After a restart there is nothing to remember: the first list holds what was written before.
//
// resourceVersions are compared as numbers, which the API promises from Kubernetes 1.35 on.
package expectations

import (
	"errors"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/kubernetes/pkg/controller/util/consistency"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// ErrStale says that something changed after it was observed: the rest of a plan is void.
var ErrStale = errors.New("something changed after it was observed")

// OrStale returns ErrStale if an object changed or is gone, and any other error as it is.
func OrStale(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return ErrStale
	}
	return err
}

// Tracker remembers the writes of one loop. It is safe for concurrent use.
type Tracker struct {
	versions consistency.ConsistencyStore

	mu      sync.Mutex
	deleted map[types.NamespacedName]sets.Set[types.UID]
}

// New returns a Tracker of writes to what stores hold.
func New(stores map[schema.GroupResource]consistency.LastSyncRVGetter) *Tracker {
	return &Tracker{
		versions: consistency.NewConsistencyStore(stores),
		deleted:  map[types.NamespacedName]sets.Set[types.UID]{},
	}
}

// Wrote records that object, as the API server returned it, was created or changed for owner.
func (t *Tracker) Wrote(owner client.Object, resource schema.GroupResource, object client.Object) {
	t.versions.WroteAt(client.ObjectKeyFromObject(owner), owner.GetUID(), resource, object.GetResourceVersion())
}

// Satisfied says whether the cache holds everything that Wrote recorded for owner.
func (t *Tracker) Satisfied(owner types.NamespacedName) bool {
	return t.versions.EnsureReady(owner) == nil
}

// Deleted records that the API server accepted the deletion of a Pod that owner controls. The loop
// does not wait for deletions: a deleted Pod never returns, so it is enough not to count it.
func (t *Tracker) Deleted(owner types.NamespacedName, uid types.UID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.deleted[owner] == nil {
		t.deleted[owner] = sets.New[types.UID]()
	}
	t.deleted[owner].Insert(uid)
}

// Deleting returns which of the Pods that the cache shows alive were deleted, and forgets all
// others of owner's.
func (t *Tracker) Deleting(owner types.NamespacedName, cached []*corev1.Pod) sets.Set[types.UID] {
	t.mu.Lock()
	defer t.mu.Unlock()
	deleted, deleting := t.deleted[owner], sets.New[types.UID]()
	for _, pod := range cached {
		if pod.DeletionTimestamp == nil && deleted.Has(pod.UID) {
			deleting.Insert(pod.UID)
		}
	}
	if len(deleting) == 0 {
		delete(t.deleted, owner)
		return nil
	}
	t.deleted[owner] = deleting.Clone()
	return deleting
}

// Forget drops what is remembered of an owner that is gone.
func (t *Tracker) Forget(owner types.NamespacedName) {
	t.versions.Clear(owner, "")
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.deleted, owner)
}
