// Package kinds lets one loop serve a workload kind in several API groups: the loops know the types
// of apps/v1 only, and a Kind reads and writes the objects of one group as these.
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
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/expectations"
)

// Kind is a kind of one API group, whose objects the loops see as T.
type Kind[T client.Object] struct {
	schema.GroupVersionKind
	Resource schema.GroupResource
	// object and list are empty, and of the group's own types.
	object client.Object
	list   client.ObjectList
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
		return Group{
			kind[*appsv1.Deployment](version, "Deployment", &appsv1.Deployment{}, &appsv1.DeploymentList{}),
			kind[*appsv1.ReplicaSet](version, "ReplicaSet", &appsv1.ReplicaSet{}, &appsv1.ReplicaSetList{}),
		}, nil
	case v1alpha1.GroupVersion:
		return Group{
			kind[*appsv1.Deployment](version, "Deployment", &v1alpha1.Deployment{}, &v1alpha1.DeploymentList{}),
			kind[*appsv1.ReplicaSet](version, "ReplicaSet", &v1alpha1.ReplicaSet{}, &v1alpha1.ReplicaSetList{}),
		}, nil
	}
	return Group{}, fmt.Errorf("finding the workload kinds of %s: the loops serve %s and %s only", version,
		appsv1.SchemeGroupVersion, v1alpha1.GroupVersion)
}

// Pods are the same for all groups.
func Pods() Kind[*corev1.Pod] {
	return kind[*corev1.Pod](corev1.SchemeGroupVersion, "Pod", &corev1.Pod{}, &corev1.PodList{})
}

func kind[T client.Object](v schema.GroupVersion, name string, object client.Object, list client.ObjectList) Kind[T] {
	resource, _ := meta.UnsafeGuessKindToResource(v.WithKind(name))
	return Kind[T]{v.WithKind(name), resource.GroupResource(), object, list}
}

// New returns an empty object of the group's own type.
func (k Kind[T]) New() client.Object { return k.object.DeepCopyObject().(client.Object) }

// Read converts an object of the group's own type. The result has apiVersion and kind, for Events,
// and shares memory with the object, which may be a cache's.
func (k Kind[T]) Read(object client.Object) (T, v1alpha1.Options) {
	apps, options := v1alpha1.ToApps(object)
	apps.GetObjectKind().SetGroupVersionKind(k.GroupVersionKind)
	return apps.(T), options
}

// Write converts an object, and the fields that its status lacks, to the group's own type.
func (k Kind[T]) Write(object T, status v1alpha1.OptionsStatus) client.Object {
	if k.Group != v1alpha1.GroupVersion.Group {
		return object
	}
	return v1alpha1.FromApps(object, status).(client.Object)
}

// Get reads one object. The error is the reader's own.
func (k Kind[T]) Get(ctx context.Context, reader client.Reader, key types.NamespacedName) (T, v1alpha1.Options, error) {
	object := k.New()
	err := reader.Get(ctx, key, object)
	read, options := k.Read(object)
	return read, options, err
}

// List reads the objects that opts select. What they point to may be a cache's.
func (k Kind[T]) List(ctx context.Context, reader client.Reader, opts ...client.ListOption) (items []T, err error) {
	list := k.list.DeepCopyObject().(client.ObjectList)
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
	created := k.Write(object.DeepCopyObject().(T), v1alpha1.OptionsStatus{})
	err := writer.Create(ctx, created)
	read, _ := k.Read(created)
	return read, err
}

// Patch sends the difference between before and after and returns the object as stored. The error
// is a Conflict if the object has changed since before was read.
func (k Kind[T]) Patch(ctx context.Context, writer client.Writer, before, after T) (T, error) {
	nothing := v1alpha1.OptionsStatus{}
	object, patch, err := k.patch(k.Write(before, nothing), k.Write(after, nothing))
	if err == nil {
		err = writer.Patch(ctx, object, patch)
	}
	stored, _ := k.Read(object)
	return stored, err
}

// PatchStatus writes the status, if it changed, and records that; was and is are what apps/v1
// lacks. A Conflict is no error: the event of the other write enqueues the object.
func (k Kind[T]) PatchStatus(
	ctx context.Context, writer client.StatusClient, tracker *expectations.Tracker, before, after T,
	was, is v1alpha1.OptionsStatus,
) error {
	from, to := k.Write(before, was), k.Write(after, is)
	if equality.Semantic.DeepEqual(from, to) {
		return nil
	}
	object, patch, err := k.patch(from, to)
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
func (k Kind[T]) patch(from, to client.Object) (client.Object, client.Patch, error) {
	object := k.New()
	object.SetNamespace(from.GetNamespace())
	object.SetName(from.GetName())
	data, err := client.MergeFromWithOptions(from, client.MergeFromWithOptimisticLock{}).Data(to)
	return object, client.RawPatch(types.MergePatchType, data), err
}
