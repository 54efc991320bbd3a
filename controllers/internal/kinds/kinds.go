// Package kinds lets one loop serve a workload kind in several API groups: the loops know the types
// of apps/v1 only, and a Kind converts objects of one group to these and back. It stores nothing
// and decides nothing.
//
// Changes are sent as merge patches of the fields that apps/v1 has, with the resourceVersion that
// was read, never as whole objects: a loop must not lose the fields that a group adds.
package kinds

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/expectations"
)

// Kind is a kind of one API group, whose objects the loops see as T.
type Kind[T client.Object] struct {
	// GroupVersionKind is what a ControllerRef to such an object says.
	schema.GroupVersionKind
	// Resource is the kind's plural in the API server.
	Resource schema.GroupResource
}

// Group is one API group's pair of workload kinds.
type Group struct {
	Deployments Kind[*appsv1.Deployment]
	ReplicaSets Kind[*appsv1.ReplicaSet]
}

// Options are the fields of a group's spec and status that apps/v1 lacks. Those of apps/v1 objects
// are all zero.
type Options struct {
	// Rollback and Partition are of Deployments, PodsToDelete of ReplicaSets.
	Rollback     v1alpha1.Rollback
	Partition    *intstr.IntOrString
	PodsToDelete []string
	// Status is what was last reported.
	Status Status
}

// Status are the fields of an object's status that apps/v1 lacks. Writing them to an apps/v1 object
// does nothing.
type Status struct {
	Selector            string
	AvailableReplicaSet string
	Rollback            *v1alpha1.RollbackStatus
}

// For returns the kinds of an API group and version.
func For(version schema.GroupVersion) (Group, error) {
	if version != appsv1.SchemeGroupVersion && version != v1alpha1.GroupVersion {
		return Group{}, fmt.Errorf("finding the workload kinds of %s: the loops serve %s and %s only", version,
			appsv1.SchemeGroupVersion, v1alpha1.GroupVersion)
	}
	return Group{
		Deployments: kind[*appsv1.Deployment](version.WithKind("Deployment")),
		ReplicaSets: kind[*appsv1.ReplicaSet](version.WithKind("ReplicaSet")),
	}, nil
}

// Pods are the same for all groups.
func Pods() Kind[*corev1.Pod] { return kind[*corev1.Pod](corev1.SchemeGroupVersion.WithKind("Pod")) }

func kind[T client.Object](kind schema.GroupVersionKind) Kind[T] {
	resource, _ := meta.UnsafeGuessKindToResource(kind)
	return Kind[T]{kind, resource.GroupResource()}
}

// New returns an empty object of the group's own type.
func (k Kind[T]) New() client.Object {
	object, _ := k.types()
	return object
}

// types returns an empty object and an empty list of the group's own types.
func (k Kind[T]) types() (client.Object, client.ObjectList) {
	switch k.GroupVersionKind {
	case v1alpha1.GroupVersion.WithKind("Deployment"):
		return &v1alpha1.Deployment{}, &v1alpha1.DeploymentList{}
	case v1alpha1.GroupVersion.WithKind("ReplicaSet"):
		return &v1alpha1.ReplicaSet{}, &v1alpha1.ReplicaSetList{}
	case appsv1.SchemeGroupVersion.WithKind("Deployment"):
		return &appsv1.Deployment{}, &appsv1.DeploymentList{}
	case appsv1.SchemeGroupVersion.WithKind("ReplicaSet"):
		return &appsv1.ReplicaSet{}, &appsv1.ReplicaSetList{}
	}
	return &corev1.Pod{}, &corev1.PodList{}
}

// Read converts an object of the group's own type. The result has the group's apiVersion and kind,
// for Events. It shares memory with the object, which may be a cache's.
func (k Kind[T]) Read(object client.Object) (T, Options) {
	var options Options
	switch o := object.(type) {
	case *v1alpha1.Deployment:
		object, options = readDeployment(o)
	case *v1alpha1.ReplicaSet:
		object, options = readReplicaSet(o)
	}
	object.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	return object.(T), options
}

// Write converts an object, and the fields that its status lacks, to the group's own type. The
// result shares memory with the object and lacks the fields that only Options hold.
func (k Kind[T]) Write(object T, status Status) client.Object {
	if k.Group == v1alpha1.GroupVersion.Group {
		switch o := client.Object(object).(type) {
		case *appsv1.Deployment:
			return writeDeployment(o, status)
		case *appsv1.ReplicaSet:
			return writeReplicaSet(o, status)
		}
	}
	return object
}

// Get reads one object. The error is the reader's own.
func (k Kind[T]) Get(ctx context.Context, reader client.Reader, key types.NamespacedName) (T, Options, error) {
	object := k.New()
	err := reader.Get(ctx, key, object)
	read, options := k.Read(object)
	return read, options, err
}

// List reads the objects that opts select. What they point to may be a cache's.
func (k Kind[T]) List(ctx context.Context, reader client.Reader, opts ...client.ListOption) (items []T, err error) {
	_, list := k.types()
	if err := reader.List(ctx, list, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		return nil, fmt.Errorf("listing %s: %w", k.Resource, err)
	}
	err = meta.EachListItem(list, func(item runtime.Object) error {
		read, _ := k.Read(item.(client.Object))
		items = append(items, read)
		return nil
	})
	return items, err
}

// Create creates an object and returns it as the API server stored it.
func (k Kind[T]) Create(ctx context.Context, writer client.Writer, object T) (T, error) {
	created := k.Write(object.DeepCopyObject().(T), Status{})
	err := writer.Create(ctx, created)
	read, _ := k.Read(created)
	return read, err
}

// Patch sends the difference between before and after and returns the object as stored. The error
// is a Conflict if the object has changed since before was read.
func (k Kind[T]) Patch(ctx context.Context, writer client.Writer, before, after T) (T, error) {
	object, patch, err := k.patch(before, after, Status{}, Status{})
	if err == nil {
		err = writer.Patch(ctx, object, patch)
	}
	stored, _ := k.Read(object)
	return stored, err
}

// PatchStatus writes the status, if it changed, and records that write; was and is are its fields
// that apps/v1 lacks. A Conflict is no error: the event of the other write enqueues the object.
func (k Kind[T]) PatchStatus(
	ctx context.Context, writer client.StatusClient, tracker *expectations.Tracker, before, after T, was, is Status,
) error {
	if equality.Semantic.DeepEqual(k.Write(before, was), k.Write(after, is)) {
		return nil
	}
	object, patch, err := k.patch(before, after, was, is)
	if err == nil {
		err = writer.Status().Patch(ctx, object, patch)
	}
	switch {
	case err == nil:
		tracker.Wrote(before, k.Resource, object)
	case !errors.Is(expectations.OrStale(err), expectations.ErrStale):
		return fmt.Errorf("writing the status of %s %s/%s: %w", k.Kind, before.GetNamespace(), before.GetName(), err)
	}
	return nil
}

// patch returns an object to patch, without anything else in it, and what to send.
func (k Kind[T]) patch(before, after T, was, is Status) (client.Object, client.Patch, error) {
	object := k.New()
	object.SetNamespace(before.GetNamespace())
	object.SetName(before.GetName())
	from := client.MergeFromWithOptions(k.Write(before, was), client.MergeFromWithOptimisticLock{})
	data, err := from.Data(k.Write(after, is))
	return object, client.RawPatch(types.MergePatchType, data), err
}

func readDeployment(o *v1alpha1.Deployment) (*appsv1.Deployment, Options) {
	d := &appsv1.Deployment{ObjectMeta: o.ObjectMeta, Spec: o.Spec.DeploymentSpec, Status: o.Status.DeploymentStatus}
	d.Spec.Strategy = o.Spec.Strategy.DeploymentStrategy
	options := Options{
		Rollback: ptr.Deref(o.Spec.Rollback, v1alpha1.Rollback{}),
		Status:   Status{o.Status.Selector, o.Status.AvailableReplicaSet, o.Status.Rollback},
	}
	if rolling := o.Spec.Strategy.RollingUpdate; rolling != nil {
		d.Spec.Strategy.RollingUpdate = &rolling.RollingUpdateDeployment
		options.Partition = rolling.Partition
	} else if o.Spec.Strategy.Type == appsv1.RollingUpdateDeploymentStrategyType {
		// As apps/v1 has it. The schema cannot: it would have to know that the type is not
		// Recreate.
		quarter := new(intstr.FromString("25%"))
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: quarter, MaxUnavailable: quarter}
	}
	return d, options
}

func writeDeployment(d *appsv1.Deployment, status Status) client.Object {
	o := &v1alpha1.Deployment{ObjectMeta: d.ObjectMeta, Spec: v1alpha1.DeploymentSpec{DeploymentSpec: d.Spec}}
	o.Status = v1alpha1.DeploymentStatus{
		DeploymentStatus: d.Status, Selector: status.Selector,
		AvailableReplicaSet: status.AvailableReplicaSet, Rollback: status.Rollback,
	}
	o.Spec.Strategy.DeploymentStrategy = d.Spec.Strategy
	if rolling := d.Spec.Strategy.RollingUpdate; rolling != nil {
		o.Spec.Strategy.RollingUpdate = &v1alpha1.RollingUpdateDeployment{RollingUpdateDeployment: *rolling}
	}
	return o
}

func readReplicaSet(o *v1alpha1.ReplicaSet) (*appsv1.ReplicaSet, Options) {
	options := Options{Status: Status{Selector: o.Status.Selector}}
	if o.Spec.ScaleDown != nil {
		options.PodsToDelete = o.Spec.ScaleDown.PodsToDelete
	}
	set := &appsv1.ReplicaSet{ObjectMeta: o.ObjectMeta, Spec: o.Spec.ReplicaSetSpec, Status: o.Status.ReplicaSetStatus}
	return set, options
}

func writeReplicaSet(s *appsv1.ReplicaSet, status Status) client.Object {
	return &v1alpha1.ReplicaSet{
		ObjectMeta: s.ObjectMeta, Spec: v1alpha1.ReplicaSetSpec{ReplicaSetSpec: s.Spec},
		Status: v1alpha1.ReplicaSetStatus{ReplicaSetStatus: s.Status, Selector: status.Selector},
	}
}
