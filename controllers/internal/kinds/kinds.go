// Package kinds lets one loop serve a workload kind in several API groups.
//
// The loops know the types of apps/v1 only and call them canonical. A Kind turns objects of one group into canonical
// ones and back. It leaves every decision to the loops and keeps nothing.
//
// Changes travel as merge patches of the canonical object's fields with the resourceVersion that was read, never as
// whole objects: fields that a group adds to apps/v1 are not the loops' to lose.
package kinds

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
)

// Kind is a workload kind of one API group, seen as the canonical type T.
type Kind[T client.Object] struct {
	// GroupVersionKind is what a ControllerRef to such an object says.
	GroupVersionKind schema.GroupVersionKind
	// Resource is the plural that the API server knows the kind by.
	Resource schema.GroupResource
	// New returns an empty object of the group's own type.
	New func() client.Object

	newList   func() client.ObjectList
	canonical func(client.Object) T // a shallow copy
	object    func(T) client.Object // a deep one; only creation needs a whole object
}

// Group is one API group's pair of workload kinds.
type Group struct {
	Deployments Kind[*appsv1.Deployment]
	ReplicaSets Kind[*appsv1.ReplicaSet]
}

// For returns the kinds of an API group and version.
func For(version schema.GroupVersion) (Group, error) {
	switch version {
	case appsv1.SchemeGroupVersion:
		return apps(), nil
	case v1alpha1.GroupVersion:
		return flyball(), nil
	}
	return Group{}, fmt.Errorf("finding the workload kinds of %s: the loops serve %s and %s only", version,
		appsv1.SchemeGroupVersion, v1alpha1.GroupVersion)
}

// Canonical turns an object of the group's own type into the canonical one, with apiVersion and kind of the group, so that
// Events name the right object. The two share memory: treat the result as read only, as what comes from a cache.
func (k Kind[T]) Canonical(object client.Object) T {
	canonical := k.canonical(object)
	canonical.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	return canonical
}

// Get reads one object. A NotFound error is the reader's own.
func (k Kind[T]) Get(ctx context.Context, reader client.Reader, key types.NamespacedName) (T, error) {
	object := k.New()
	err := reader.Get(ctx, key, object)
	return k.Canonical(object), err
}

// List reads the objects that opts select.
func (k Kind[T]) List(ctx context.Context, reader client.Reader, opts ...client.ListOption) ([]T, error) {
	list := k.newList()
	if err := reader.List(ctx, list, opts...); err != nil {
		return nil, fmt.Errorf("listing %s: %w", k.Resource, err)
	}
	var items []T
	err := meta.EachListItem(list, func(object runtime.Object) error {
		items = append(items, k.Canonical(object.(client.Object)))
		return nil
	})
	return items, err
}

// Create creates an object and returns it as the API server stored it.
func (k Kind[T]) Create(ctx context.Context, writer client.Writer, object T) (T, error) {
	created := k.object(object)
	err := writer.Create(ctx, created)
	return k.Canonical(created), err
}

// Patch makes the API server's object differ from before as after does, unless somebody else changed it since before was
// read: that is a Conflict. It returns the object as stored.
func (k Kind[T]) Patch(ctx context.Context, writer client.Writer, before, after T) (T, error) {
	object, patch, err := k.patch(before, after)
	if err == nil {
		err = writer.Patch(ctx, object, patch)
	}
	return k.Canonical(object), err
}

// PatchStatus is Patch for the status subresource.
func (k Kind[T]) PatchStatus(ctx context.Context, writer client.StatusClient, before, after T) (T, error) {
	object, patch, err := k.patch(before, after)
	if err == nil {
		err = writer.Status().Patch(ctx, object, patch)
	}
	return k.Canonical(object), err
}

func (k Kind[T]) patch(before, after T) (client.Object, client.Patch, error) {
	object := k.New()
	object.SetNamespace(before.GetNamespace())
	object.SetName(before.GetName())
	data, err := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}).Data(after)
	if err != nil {
		err = fmt.Errorf("rendering the patch of %s %s/%s: %w", k.Resource, before.GetNamespace(), before.GetName(), err)
	}
	return object, client.RawPatch(types.MergePatchType, data), err
}

func apps() Group {
	return Group{
		Deployments: Kind[*appsv1.Deployment]{
			GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("Deployment"),
			Resource:         schema.GroupResource{Group: appsv1.GroupName, Resource: "deployments"},
			New:              func() client.Object { return &appsv1.Deployment{} },
			newList:          func() client.ObjectList { return &appsv1.DeploymentList{} },
			canonical:        func(object client.Object) *appsv1.Deployment { return new(*object.(*appsv1.Deployment)) },
			object:           func(canonical *appsv1.Deployment) client.Object { return canonical.DeepCopy() },
		},
		ReplicaSets: Kind[*appsv1.ReplicaSet]{
			GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
			Resource:         schema.GroupResource{Group: appsv1.GroupName, Resource: "replicasets"},
			New:              func() client.Object { return &appsv1.ReplicaSet{} },
			newList:          func() client.ObjectList { return &appsv1.ReplicaSetList{} },
			canonical:        func(object client.Object) *appsv1.ReplicaSet { return new(*object.(*appsv1.ReplicaSet)) },
			object:           func(canonical *appsv1.ReplicaSet) client.Object { return canonical.DeepCopy() },
		},
	}
}

func flyball() Group {
	return Group{
		Deployments: Kind[*appsv1.Deployment]{
			GroupVersionKind: v1alpha1.GroupVersion.WithKind("Deployment"),
			Resource:         schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "deployments"},
			New:              func() client.Object { return &v1alpha1.Deployment{} },
			newList:          func() client.ObjectList { return &v1alpha1.DeploymentList{} },
			canonical: func(object client.Object) *appsv1.Deployment {
				o := object.(*v1alpha1.Deployment)
				return &appsv1.Deployment{ObjectMeta: o.ObjectMeta, Spec: o.Spec.DeploymentSpec, Status: o.Status.DeploymentStatus}
			},
			object: func(canonical *appsv1.Deployment) client.Object {
				c := canonical.DeepCopy()
				return &v1alpha1.Deployment{ObjectMeta: c.ObjectMeta, Spec: v1alpha1.DeploymentSpec{DeploymentSpec: c.Spec}}
			},
		},
		ReplicaSets: Kind[*appsv1.ReplicaSet]{
			GroupVersionKind: v1alpha1.GroupVersion.WithKind("ReplicaSet"),
			Resource:         schema.GroupResource{Group: v1alpha1.GroupVersion.Group, Resource: "replicasets"},
			New:              func() client.Object { return &v1alpha1.ReplicaSet{} },
			newList:          func() client.ObjectList { return &v1alpha1.ReplicaSetList{} },
			canonical: func(object client.Object) *appsv1.ReplicaSet {
				o := object.(*v1alpha1.ReplicaSet)
				return &appsv1.ReplicaSet{ObjectMeta: o.ObjectMeta, Spec: o.Spec.ReplicaSetSpec, Status: o.Status.ReplicaSetStatus}
			},
			object: func(canonical *appsv1.ReplicaSet) client.Object {
				c := canonical.DeepCopy()
				return &v1alpha1.ReplicaSet{ObjectMeta: c.ObjectMeta, Spec: v1alpha1.ReplicaSetSpec{ReplicaSetSpec: c.Spec}}
			},
		},
	}
}
