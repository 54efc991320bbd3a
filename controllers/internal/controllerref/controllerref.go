// Package controllerref finds the objects that an owner controls or may adopt, decides which are
// the owner's, and writes that. It never changes an object whose ControllerRef names another owner.
package controllerref

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/samber/lo"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"flyball.dev/controllers/internal/action"
	"flyball.dev/controllers/internal/expectations"
	"flyball.dev/controllers/internal/kinds"
)

// Index is the cache index that finds objects by their controller's UID; none is the key of objects
// without a controller.
const (
	Index = "controllerUID"
	none  = "-"
)

// Keys returns an object's keys in Index.
func Keys(object client.Object) []string {
	if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
		return []string{string(ref.UID)}
	}
	return []string{none}
}

// Controlled lists the objects that the owner with this UID controls.
func Controlled[C client.Object](
	ctx context.Context, reader client.Reader, kind kinds.Kind[C], namespace string, owner types.UID,
) ([]C, error) {
	return kind.List(ctx, reader, client.InNamespace(namespace), client.MatchingFields{Index: string(owner)})
}

// Candidates lists what an owner controls and, in its namespace, what has no controller.
func Candidates[C client.Object](
	ctx context.Context, reader client.Reader, kind kinds.Kind[C], owner client.Object,
) ([]C, error) {
	own, err := Controlled(ctx, reader, kind, owner.GetNamespace(), owner.GetUID())
	if err != nil {
		return nil, err
	}
	orphans, err := Controlled(ctx, reader, kind, owner.GetNamespace(), none)
	return append(own, orphans...), err
}

// IsOf reports whether a reference names an object of a kind, in whatever version of its group.
func IsOf(ref *metav1.OwnerReference, kind schema.GroupVersionKind) bool {
	return ref != nil && ref.Kind == kind.Kind && strings.HasPrefix(ref.APIVersion, kind.Group+"/")
}

// Claim decides which objects are the owner's. Unless the owner is being deleted, it adopts orphans
// that the selector matches and releases own objects that the selector no longer matches.
func Claim[C metav1.Object](owner metav1.Object, selector labels.Selector, all []C) (own []C, actions []action.Action) {
	terminating := owner.GetDeletionTimestamp() != nil
	for _, object := range all {
		ref := metav1.GetControllerOfNoCopy(object)
		matches := selector.Matches(labels.Set(object.GetLabels()))
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			own = append(own, object)
		case ref != nil && !terminating:
			actions = append(actions, action.Release{Object: object, Reason: "its labels no longer match the selector"})
		case ref == nil && matches && !terminating && object.GetDeletionTimestamp() == nil:
			own = append(own, object)
			actions = append(actions, action.Adopt{Object: object, Reason: "the selector matches it and nobody controls it"})
		}
	}
	return own, actions
}

// Owners maps an object to the owners to reconcile when it changes: its controller, or all whose
// selector matches it.
func Owners[T client.Object](
	ctx context.Context, reader client.Reader, owners kinds.Kind[T], selectorOf func(T) *metav1.LabelSelector,
	object client.Object,
) []reconcile.Request {
	ref := metav1.GetControllerOfNoCopy(object)
	switch {
	case IsOf(ref, owners.GroupVersionKind):
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: ref.Name}}}
	case ref != nil, object.GetDeletionTimestamp() != nil, len(object.GetLabels()) == 0:
		return nil
	}
	all, _ := owners.List(ctx, reader, client.InNamespace(object.GetNamespace())) // fails only when the process stops
	return lo.FilterMap(all, func(owner T, _ int) (reconcile.Request, bool) {
		selector, err := metav1.LabelSelectorAsSelector(selectorOf(owner))
		matches := err == nil && !selector.Empty() && selector.Matches(labels.Set(object.GetLabels()))
		return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(owner)}, matches
	})
}

// MayAdopt returns ErrStale if the API server says that an owner is gone or being deleted. A cache
// that does not show that yet would let the owner adopt what the garbage collector has just
// orphaned (https://github.com/kubernetes/kubernetes/issues/42639).
func MayAdopt[T client.Object](ctx context.Context, live client.Reader, kind kinds.Kind[T], owner T) error {
	current, _, err := kind.Get(ctx, live, client.ObjectKeyFromObject(owner))
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("asking whether %s/%s may adopt: %w", owner.GetNamespace(), owner.GetName(), err)
	}
	if err != nil || current.GetUID() != owner.GetUID() || current.GetDeletionTimestamp() != nil {
		return expectations.ErrStale
	}
	return nil
}

// Replace writes refs in place of an object's references to an owner, and records that. The error
// is ErrStale if the object has changed since it was read. The object gets the new resourceVersion.
func Replace[C client.Object](
	ctx context.Context, c client.Client, tracker *expectations.Tracker, kind kinds.Kind[C],
	owner client.Object, object C, refs ...metav1.OwnerReference,
) error {
	after := object.DeepCopyObject().(C)
	others := slices.DeleteFunc(after.GetOwnerReferences(), func(ref metav1.OwnerReference) bool {
		return ref.UID == owner.GetUID()
	})
	after.SetOwnerReferences(append(others, refs...))
	stored, err := kind.Patch(ctx, c, object, after)
	if err != nil {
		return expectations.OrStale(fmt.Errorf("changing the controller of %s %s: %w", kind.Kind, object.GetName(), err))
	}
	tracker.Wrote(owner, kind.Resource, stored)
	object.SetResourceVersion(stored.GetResourceVersion())
	return nil
}
