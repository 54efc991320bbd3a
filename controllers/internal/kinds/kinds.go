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
	"k8s.io/apimachinery/pkg/util/intstr"
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
	options   func(client.Object) Options
	object    func(T, Status) client.Object // a deep copy, without what only Options hold
}

// Options are the fields of a group's spec and status that apps/v1 lacks. Those of apps/v1 objects are all zero.
type Options struct {
	// Rollback and Partition are of Deployments, PodsToDelete of ReplicaSets.
	Rollback     *v1alpha1.Rollback
	Partition    *intstr.IntOrString
	PodsToDelete []string
	// Status is what was last reported.
	Status Status
}

// Status are the fields that apps/v1 lacks of an object's status. Writing them to an apps/v1 object does nothing.
type Status struct {
	Selector            string
	AvailableReplicaSet string
	Rollback            *v1alpha1.RollbackStatus
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

// GetOptions is Get that also reads what apps/v1 lacks.
func (k Kind[T]) GetOptions(ctx context.Context, reader client.Reader, key types.NamespacedName) (T, Options, error) {
	object := k.New()
	err := reader.Get(ctx, key, object)
	return k.Canonical(object), k.options(object), err
}

// Options are what an object of the group's own type has beyond apps/v1.
func (k Kind[T]) Options(object client.Object) Options { return k.options(object) }

// Keeps is as much of a status beyond apps/v1 as the group has fields for.
func (k Kind[T]) Keeps(status Status) Status {
	if k.GroupVersionKind.Group == appsv1.GroupName {
		return Status{}
	}
	return status
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
	created := k.object(object, Status{})
	err := writer.Create(ctx, created)
	return k.Canonical(created), err
}

// Patch makes the API server's object differ from before as after does, unless somebody else changed it since before was
// read: that is a Conflict. It returns the object as stored.
func (k Kind[T]) Patch(ctx context.Context, writer client.Writer, before, after T) (T, error) {
	object, patch, err := k.patch(before, after, Status{}, Status{})
	if err == nil {
		err = writer.Patch(ctx, object, patch)
	}
	return k.Canonical(object), err
}

// PatchStatus is Patch for the status subresource; was and is are the fields of the status that apps/v1 lacks.
func (k Kind[T]) PatchStatus(ctx context.Context, writer client.StatusClient, before, after T, was, is Status) (T, error) {
	object, patch, err := k.patch(before, after, was, is)
	if err == nil {
		err = writer.Status().Patch(ctx, object, patch)
	}
	return k.Canonical(object), err
}

func (k Kind[T]) patch(before, after T, was, is Status) (client.Object, client.Patch, error) {
	object := k.New()
	object.SetNamespace(before.GetNamespace())
	object.SetName(before.GetName())
	data, err := client.MergeFromWithOptions(k.object(before, was), client.MergeFromWithOptimisticLock{}).Data(k.object(after, is))
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
			options:          func(client.Object) Options { return Options{} },
			object:           func(canonical *appsv1.Deployment, _ Status) client.Object { return canonical.DeepCopy() },
		},
		ReplicaSets: Kind[*appsv1.ReplicaSet]{
			GroupVersionKind: appsv1.SchemeGroupVersion.WithKind("ReplicaSet"),
			Resource:         schema.GroupResource{Group: appsv1.GroupName, Resource: "replicasets"},
			New:              func() client.Object { return &appsv1.ReplicaSet{} },
			newList:          func() client.ObjectList { return &appsv1.ReplicaSetList{} },
			canonical:        func(object client.Object) *appsv1.ReplicaSet { return new(*object.(*appsv1.ReplicaSet)) },
			options:          func(client.Object) Options { return Options{} },
			object:           func(canonical *appsv1.ReplicaSet, _ Status) client.Object { return canonical.DeepCopy() },
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
				spec := o.Spec.DeploymentSpec
				spec.Strategy = o.Spec.Strategy.DeploymentStrategy
				if rolling := o.Spec.Strategy.RollingUpdate; rolling != nil {
					spec.Strategy.RollingUpdate = &rolling.RollingUpdateDeployment
				}
				return &appsv1.Deployment{ObjectMeta: o.ObjectMeta, Spec: spec, Status: o.Status.DeploymentStatus}
			},
			options: func(object client.Object) Options {
				o := object.(*v1alpha1.Deployment)
				options := Options{Rollback: o.Spec.Rollback, Status: Status{
					Selector: o.Status.Selector, AvailableReplicaSet: o.Status.AvailableReplicaSet, Rollback: o.Status.Rollback,
				}}
				if o.Spec.Strategy.RollingUpdate != nil {
					options.Partition = o.Spec.Strategy.RollingUpdate.Partition
				}
				return options
			},
			object: func(canonical *appsv1.Deployment, status Status) client.Object {
				c := canonical.DeepCopy()
				o := &v1alpha1.Deployment{ObjectMeta: c.ObjectMeta, Spec: v1alpha1.DeploymentSpec{DeploymentSpec: c.Spec}}
				o.Spec.Strategy.DeploymentStrategy = c.Spec.Strategy
				if c.Spec.Strategy.RollingUpdate != nil {
					o.Spec.Strategy.RollingUpdate = &v1alpha1.RollingUpdateDeployment{RollingUpdateDeployment: *c.Spec.Strategy.RollingUpdate}
				}
				o.Status = v1alpha1.DeploymentStatus{
					DeploymentStatus: c.Status, Selector: status.Selector, AvailableReplicaSet: status.AvailableReplicaSet, Rollback: status.Rollback,
				}
				return o
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
			options: func(object client.Object) Options {
				o := object.(*v1alpha1.ReplicaSet)
				options := Options{Status: Status{Selector: o.Status.Selector}}
				if o.Spec.ScaleDown != nil {
					options.PodsToDelete = o.Spec.ScaleDown.PodsToDelete
				}
				return options
			},
			object: func(canonical *appsv1.ReplicaSet, status Status) client.Object {
				c := canonical.DeepCopy()
				return &v1alpha1.ReplicaSet{
					ObjectMeta: c.ObjectMeta, Spec: v1alpha1.ReplicaSetSpec{ReplicaSetSpec: c.Spec},
					Status: v1alpha1.ReplicaSetStatus{ReplicaSetStatus: c.Status, Selector: status.Selector},
				}
			},
		},
	}
}
