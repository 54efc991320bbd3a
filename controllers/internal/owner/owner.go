// Package owner decides who controls an object: which Pods are a ReplicaSet's, which ReplicaSets a Deployment's.
//
// The ControllerRef decides, not labels. Labels decide only what may be adopted (an orphan that the selector matches) and
// what is to be released (an own object that the selector no longer matches). Deciding is pure and here; the loops carry
// it out. An object whose ControllerRef names anybody else, of whatever kind or group, is never touched.
package owner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// Index is the cache index by which objects are found by their controller's UID.
	Index = "controllerUID"
	// Nobody is the key in Index of objects without a controller.
	Nobody = "-"
)

// ErrLeaving says that an owner was deleted, although a cache does not show it yet.
var ErrLeaving = errors.New("the owner is being deleted")

// Keys are an object's keys in Index.
func Keys(object client.Object) []string {
	if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
		return []string{string(ref.UID)}
	}
	return []string{Nobody}
}

// Is says whether a reference names an object of a kind, in whatever version of its group.
func Is(ref *metav1.OwnerReference, kind schema.GroupVersionKind) bool {
	return ref.Kind == kind.Kind && strings.HasPrefix(ref.APIVersion, kind.Group+"/")
}

// ControlledBy selects what an owner with this UID controls.
func ControlledBy(uid types.UID) client.ListOption {
	return client.MatchingFields{Index: string(uid)}
}

// Orphans selects what nobody controls.
func Orphans() client.ListOption {
	return client.MatchingFields{Index: Nobody}
}

// Claims is what an owner has to do with a set of objects.
type Claims[T client.Object] struct {
	// Owned are the owner's, those in Adopt included.
	Owned []T
	// Adopt are orphans that the owner has to take, Release its own that it has to let go.
	Adopt, Release []T
}

// Claim sorts objects of the owner's namespace by what they are to the owner. An owner that is being deleted keeps what
// it has and takes nothing.
func Claim[T client.Object](owner metav1.Object, selector labels.Selector, objects []T) Claims[T] {
	var claims Claims[T]
	leaving := owner.GetDeletionTimestamp() != nil
	for _, object := range objects {
		ref := metav1.GetControllerOfNoCopy(object)
		matches := selector.Matches(labels.Set(object.GetLabels()))
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			claims.Owned = append(claims.Owned, object)
		case ref != nil && !leaving:
			claims.Release = append(claims.Release, object)
		case ref == nil && matches && !leaving && object.GetDeletionTimestamp() == nil:
			claims.Owned = append(claims.Owned, object)
			claims.Adopt = append(claims.Adopt, object)
		}
	}
	return claims
}

// Adopted returns object's owner references with owner as the controller.
func Adopted(object, owner metav1.Object, kind schema.GroupVersionKind) []metav1.OwnerReference {
	refs := make([]metav1.OwnerReference, 0, len(object.GetOwnerReferences())+1)
	for _, ref := range object.GetOwnerReferences() {
		if ref.UID != owner.GetUID() {
			refs = append(refs, ref)
		}
	}
	return append(refs, *metav1.NewControllerRef(owner, kind))
}

// Released returns object's owner references without owner.
func Released(object, owner metav1.Object) []metav1.OwnerReference {
	refs := make([]metav1.OwnerReference, 0, len(object.GetOwnerReferences()))
	for _, ref := range object.GetOwnerReferences() {
		if ref.UID != owner.GetUID() {
			refs = append(refs, ref)
		}
	}
	return refs
}

// PatchPod replaces a Pod's owner references, unless the Pod changed since it was read. It returns the Pod as stored.
func PatchPod(ctx context.Context, writer client.Writer, pod *corev1.Pod, refs []metav1.OwnerReference) (*corev1.Pod, error) {
	after := pod.DeepCopy()
	after.OwnerReferences = refs
	return after, writer.Patch(ctx, after, client.MergeFromWithOptions(pod, client.MergeFromWithOptimisticLock{}))
}

// CheckAlive asks the API server, not a cache, whether an owner may still adopt. A cache that has not seen the owner's
// deletion would let it take back what the garbage collector has just orphaned
// (https://github.com/kubernetes/kubernetes/issues/42639).
//
// The error is ErrLeaving if it may not, whatever the cache says.
func CheckAlive[T metav1.Object](owner, live T, err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return ErrLeaving
	case err != nil:
		return fmt.Errorf("asking whether %s/%s may adopt: %w", owner.GetNamespace(), owner.GetName(), err)
	case live.GetUID() != owner.GetUID() || live.GetDeletionTimestamp() != nil:
		return ErrLeaving
	}
	return nil
}

// Live makes a client that reads from the API server understand ControlledBy and Orphans, which are cache indexes: it
// lists everything and sorts out. That is for a look now and then, not for a loop.
func Live(c client.Client) client.Client { return live{c} }

type live struct{ client.Client }

func (l live) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := client.ListOptions{}
	options.ApplyOptions(opts)
	if options.FieldSelector == nil {
		return l.Client.List(ctx, list, opts...)
	}
	uid, found := options.FieldSelector.RequiresExactMatch(Index)
	if !found {
		return l.Client.List(ctx, list, opts...)
	}
	options.FieldSelector = nil
	if err := l.Client.List(ctx, list, &options); err != nil {
		return err
	}
	all, err := meta.ExtractList(list)
	if err != nil {
		return fmt.Errorf("reading a list: %w", err)
	}
	kept := all[:0]
	for _, item := range all {
		if object, ok := item.(client.Object); ok && Keys(object)[0] == uid {
			kept = append(kept, item)
		}
	}
	return meta.SetList(list, kept)
}
