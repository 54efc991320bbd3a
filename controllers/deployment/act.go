package deployment

import (
	"context"
	"errors"
	"fmt"
	"sync"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/loop"
	"flyball.dev/controllers/internal/owner"
)

// Reasons of Events beside those that are conditions' too; like the messages upstream's, because people and tools look
// for them.
const (
	ScalingReplicaSetReason = "ScalingReplicaSet"
	SelectingAllReason      = "SelectingAll"
	RolledBackReason        = "RolledBack"
)

// errCollision says that a ReplicaSet of another template, or of another owner, has the name.
var errCollision = errors.New("the name of the new ReplicaSet is taken")

// createError is why the API server did not take a ReplicaSet.
type createError struct {
	name string
	error
}

func (e createError) Unwrap() error { return e.error }

// actor carries one plan out.
type actor struct {
	*Reconciler
	// deployment is the Deployment as last written, versions the resourceVersions of ReplicaSets after earlier actions.
	deployment *appsv1.Deployment
	versions   map[types.UID]string
	mayAdopt   func() error
}

// act carries a plan out. It returns the Deployment as last written.
func (r *Reconciler) act(ctx context.Context, d *appsv1.Deployment, plan Plan) (*appsv1.Deployment, error) {
	a := &actor{Reconciler: r, deployment: d, versions: map[types.UID]string{}}
	a.mayAdopt = sync.OnceValue(func() error { return r.MayAdopt(ctx, d) })
	err := r.Act(ctx, plan.Actions, func(action Action) error {
		err := a.do(ctx, action)
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return loop.ErrStale
		}
		return err
	})
	return a.deployment, err
}

func (a *actor) do(ctx context.Context, action Action) error {
	switch action := action.(type) {
	case Adopt:
		if err := a.mayAdopt(); err != nil {
			return err
		}
		return a.handOver(ctx, action.ReplicaSet, owner.Adopted(action.ReplicaSet, a.deployment, a.Kind.GroupVersionKind))
	case Release:
		return a.handOver(ctx, action.ReplicaSet, owner.Released(action.ReplicaSet, a.deployment))
	case Create:
		return a.create(ctx, action.ReplicaSet.DeepCopy())
	case Update:
		return a.update(ctx, action.Before.DeepCopy(), action.After.DeepCopy())
	case Delete:
		set := a.replicaSets.New()
		set.SetNamespace(action.ReplicaSet.Namespace)
		set.SetName(action.ReplicaSet.Name)
		preconditions := client.Preconditions{UID: &action.ReplicaSet.UID, ResourceVersion: &action.ReplicaSet.ResourceVersion}
		return client.IgnoreNotFound(a.Client.Delete(ctx, set, preconditions, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	case SetRevision:
		after := a.deployment.DeepCopy()
		util.SetDeploymentRevision(after, action.Revision)
		stored, err := a.Kind.Patch(ctx, a.Client, a.deployment, after)
		if err != nil {
			return fmt.Errorf("writing the revision of Deployment %s: %w", a.deployment.Name, err)
		}
		a.Writes.Wrote(a.deployment, a.Kind.Resource, stored)
		a.deployment = stored
	case RollBack:
		a.Events.Event(a.deployment, corev1.EventTypeWarning, RolledBackReason, action.Message)
	case Refuse:
		a.Events.Event(a.deployment, corev1.EventTypeWarning, SelectingAllReason, action.Why())
	}
	return nil
}

func (a *actor) handOver(ctx context.Context, set *appsv1.ReplicaSet, refs []metav1.OwnerReference) error {
	after := set.DeepCopy()
	after.OwnerReferences = refs
	if err := a.patch(ctx, set, after); err != nil {
		return fmt.Errorf("changing the controller of ReplicaSet %s: %w", set.Name, err)
	}
	return nil
}

func (a *actor) update(ctx context.Context, before, after *appsv1.ReplicaSet) error {
	if version, ok := a.versions[before.UID]; ok {
		before.ResourceVersion, after.ResourceVersion = version, version
	}
	if err := a.patch(ctx, before, after); err != nil {
		return fmt.Errorf("updating ReplicaSet %s: %w", before.Name, err)
	}
	a.sayScaled(before.Name, *before.Spec.Replicas, *after.Spec.Replicas)
	return nil
}

func (a *actor) patch(ctx context.Context, before, after *appsv1.ReplicaSet) error {
	stored, err := a.replicaSets.Patch(ctx, a.Client, before, after)
	if err == nil {
		a.Writes.Wrote(a.deployment, a.replicaSets.Resource, stored)
		a.versions[before.UID] = stored.ResourceVersion
	}
	return err
}

func (a *actor) create(ctx context.Context, set *appsv1.ReplicaSet) error {
	set.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(a.deployment, a.Kind.GroupVersionKind)}
	stored, err := a.replicaSets.Create(ctx, a.Client, set)
	switch {
	case err == nil:
		a.Writes.Wrote(a.deployment, a.replicaSets.Resource, stored)
		a.sayScaled(stored.Name, 0, *stored.Spec.Replicas)
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return loop.ErrNamespaceEnds
	case apierrors.IsAlreadyExists(err):
		live, err := a.replicaSets.Get(ctx, a.Live, client.ObjectKeyFromObject(set))
		if err != nil {
			return fmt.Errorf("reading ReplicaSet %s, which exists already: %w", set.Name, err)
		}
		if metav1.IsControlledBy(live, a.deployment) && util.EqualIgnoreHash(&live.Spec.Template, &set.Spec.Template) {
			return loop.ErrStale // it is ours: the cache will show it
		}
		return errCollision
	}
	if ctx.Err() == nil {
		a.Events.Eventf(a.deployment, corev1.EventTypeWarning, ReplicaSetCreateErrorReason, "Failed to create new replica set %q: %v", set.Name, err)
	}
	return createError{set.Name, err}
}

func (a *actor) sayScaled(set string, from, to int32) {
	switch {
	case from < to:
		a.Events.Eventf(a.deployment, corev1.EventTypeNormal, ScalingReplicaSetReason, "Scaled up replica set %s from %d to %d", set, from, to)
	case from > to:
		a.Events.Eventf(a.deployment, corev1.EventTypeNormal, ScalingReplicaSetReason, "Scaled down replica set %s from %d to %d", set, from, to)
	}
}
