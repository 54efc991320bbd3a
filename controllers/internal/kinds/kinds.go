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
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
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
	// Write turns a canonical object, and what its status has beyond apps/v1, into one of the group's own type, as far as
	// that has fields for it; what only Options hold is not in it. They share memory.
	Write func(T, Status) client.Object

	newList func() client.ObjectList
	read    func(client.Object) (T, Options) // what it returns shares memory with what it is given
}

// Options are the fields of a group's spec and status that apps/v1 lacks. Those of apps/v1 objects are all zero.
type Options struct {
	// Rollback and Partition are of Deployments, PodsToDelete of ReplicaSets.
	Rollback     v1alpha1.Rollback
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

// Pods are the same for all groups.
func Pods() Kind[*corev1.Pod] {
	return canonical(corev1.SchemeGroupVersion.WithKind("Pod"), &corev1.Pod{}, &corev1.PodList{})
}

// For returns the kinds of an API group and version.
func For(version schema.GroupVersion) (Group, error) {
	switch version {
	case appsv1.SchemeGroupVersion:
		return Group{
			Deployments: canonical(version.WithKind("Deployment"), &appsv1.Deployment{}, &appsv1.DeploymentList{}),
			ReplicaSets: canonical(version.WithKind("ReplicaSet"), &appsv1.ReplicaSet{}, &appsv1.ReplicaSetList{}),
		}, nil
	case v1alpha1.GroupVersion:
		return Group{
			Deployments: kindOf(version.WithKind("Deployment"), &v1alpha1.Deployment{}, &v1alpha1.DeploymentList{}, readDeployment, writeDeployment),
			ReplicaSets: kindOf(version.WithKind("ReplicaSet"), &v1alpha1.ReplicaSet{}, &v1alpha1.ReplicaSetList{}, readReplicaSet, writeReplicaSet),
		}, nil
	}
	return Group{}, fmt.Errorf("finding the workload kinds of %s: the loops serve %s and %s only", version,
		appsv1.SchemeGroupVersion, v1alpha1.GroupVersion)
}

// Read turns an object of the group's own type into the canonical one, with apiVersion and kind of the group, so that
// Events name the right object, and into what that has no fields for. All share memory, and what the fields point to may
// be a cache's: it must not be changed.
func (k Kind[T]) Read(object client.Object) (T, Options) {
	canonical, options := k.read(object)
	canonical.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	return canonical, options
}

// Get reads one object, with what apps/v1 lacks. A NotFound error is the reader's own.
func (k Kind[T]) Get(ctx context.Context, reader client.Reader, key types.NamespacedName) (T, Options, error) {
	object := k.New()
	err := reader.Get(ctx, key, object)
	canonical, options := k.Read(object)
	return canonical, options, err
}

// List reads the objects that opts select.
func (k Kind[T]) List(ctx context.Context, reader client.Reader, opts ...client.ListOption) ([]T, error) {
	list := k.newList()
	if err := reader.List(ctx, list, opts...); err != nil {
		return nil, fmt.Errorf("listing %s: %w", k.Resource, err)
	}
	var items []T
	err := meta.EachListItem(list, func(item runtime.Object) error {
		canonical, _ := k.Read(item.(client.Object))
		items = append(items, canonical)
		return nil
	})
	return items, err
}

// Create creates an object and returns it as the API server stored it.
func (k Kind[T]) Create(ctx context.Context, writer client.Writer, object T) (T, error) {
	created := k.Write(object.DeepCopyObject().(T), Status{})
	err := writer.Create(ctx, created)
	canonical, _ := k.Read(created)
	return canonical, err
}

// Patch makes the API server's object differ from before as after does, unless somebody else changed it since before was
// read: that is a Conflict. It returns the object as stored.
func (k Kind[T]) Patch(ctx context.Context, writer client.Writer, before, after T) (T, error) {
	return k.patch(before, after, Status{}, Status{}, func(object client.Object, patch client.Patch) error {
		return writer.Patch(ctx, object, patch)
	})
}

// PatchStatus is Patch for the status subresource; was and is are the fields of the status that apps/v1 lacks.
func (k Kind[T]) PatchStatus(ctx context.Context, writer client.StatusClient, before, after T, was, is Status) (T, error) {
	return k.patch(before, after, was, is, func(object client.Object, patch client.Patch) error {
		return writer.Status().Patch(ctx, object, patch)
	})
}

func (k Kind[T]) patch(before, after T, was, is Status, send func(client.Object, client.Patch) error) (T, error) {
	object := k.New()
	object.SetNamespace(before.GetNamespace())
	object.SetName(before.GetName())
	data, err := client.MergeFromWithOptions(k.Write(before, was), client.MergeFromWithOptimisticLock{}).Data(k.Write(after, is))
	if err != nil {
		return before, fmt.Errorf("rendering the patch of %s %s/%s: %w", k.Resource, before.GetNamespace(), before.GetName(), err)
	}
	err = send(object, client.RawPatch(types.MergePatchType, data))
	canonical, _ := k.Read(object)
	return canonical, err
}

// kindOf is the kind whose objects are of own's type, and its lists of list's.
func kindOf[T client.Object](kind schema.GroupVersionKind, own client.Object, list client.ObjectList,
	read func(client.Object) (T, Options), write func(T, Status) client.Object,
) Kind[T] {
	resource, _ := meta.UnsafeGuessKindToResource(kind)
	return Kind[T]{
		GroupVersionKind: kind, Resource: resource.GroupResource(), read: read, Write: write,
		New:     func() client.Object { return own.DeepCopyObject().(client.Object) },
		newList: func() client.ObjectList { return list.DeepCopyObject().(client.ObjectList) },
	}
}

// canonical is a kind whose own type is the one that the loops know.
func canonical[T client.Object](kind schema.GroupVersionKind, own T, list client.ObjectList) Kind[T] {
	return kindOf(kind, own, list,
		func(object client.Object) (T, Options) { return object.(T), Options{} },
		func(object T, _ Status) client.Object { return object })
}

func readDeployment(object client.Object) (*appsv1.Deployment, Options) {
	o := object.(*v1alpha1.Deployment)
	d := &appsv1.Deployment{ObjectMeta: o.ObjectMeta, Spec: o.Spec.DeploymentSpec, Status: o.Status.DeploymentStatus}
	d.Spec.Strategy = o.Spec.Strategy.DeploymentStrategy
	options := Options{Rollback: ptr.Deref(o.Spec.Rollback, v1alpha1.Rollback{}), Status: Status{o.Status.Selector, o.Status.AvailableReplicaSet, o.Status.Rollback}}
	if rolling := o.Spec.Strategy.RollingUpdate; rolling != nil {
		d.Spec.Strategy.RollingUpdate = &rolling.RollingUpdateDeployment
		options.Partition = rolling.Partition
	} else if o.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		// As apps/v1 has it. The schema cannot: it would have to know that the type is not Recreate.
		quarter := new(intstr.FromString("25%"))
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: quarter, MaxUnavailable: quarter}
	}
	return d, options
}

func writeDeployment(d *appsv1.Deployment, status Status) client.Object {
	o := &v1alpha1.Deployment{ObjectMeta: d.ObjectMeta, Spec: v1alpha1.DeploymentSpec{DeploymentSpec: d.Spec}, Status: v1alpha1.DeploymentStatus{
		DeploymentStatus: d.Status, Selector: status.Selector, AvailableReplicaSet: status.AvailableReplicaSet, Rollback: status.Rollback,
	}}
	o.Spec.Strategy.DeploymentStrategy = d.Spec.Strategy
	if rolling := d.Spec.Strategy.RollingUpdate; rolling != nil {
		o.Spec.Strategy.RollingUpdate = &v1alpha1.RollingUpdateDeployment{RollingUpdateDeployment: *rolling}
	}
	return o
}

func readReplicaSet(object client.Object) (*appsv1.ReplicaSet, Options) {
	o := object.(*v1alpha1.ReplicaSet)
	options := Options{Status: Status{Selector: o.Status.Selector}}
	if o.Spec.ScaleDown != nil {
		options.PodsToDelete = o.Spec.ScaleDown.PodsToDelete
	}
	return &appsv1.ReplicaSet{ObjectMeta: o.ObjectMeta, Spec: o.Spec.ReplicaSetSpec, Status: o.Status.ReplicaSetStatus}, options
}

func writeReplicaSet(s *appsv1.ReplicaSet, status Status) client.Object {
	return &v1alpha1.ReplicaSet{
		ObjectMeta: s.ObjectMeta, Spec: v1alpha1.ReplicaSetSpec{ReplicaSetSpec: s.Spec},
		Status: v1alpha1.ReplicaSetStatus{ReplicaSetStatus: s.Status, Selector: status.Selector},
	}
}
