package deployment

import (
	"context"
	"errors"
	"fmt"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/loop"
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
type createError struct{ error }

func (e createError) Unwrap() error { return e.error }

// act carries a plan out. It returns the Deployment as last written.
func (r *Reconciler) act(ctx context.Context, d *appsv1.Deployment, plan Plan) (*appsv1.Deployment, error) {
	err := r.Act(ctx, d, plan.Actions, func(action Action) (err error) {
		switch a := action.(type) {
		case Create:
			err = r.create(ctx, d, a.ReplicaSet.DeepCopy())
		case Update:
			err = r.update(ctx, d, a.Before, a.After.DeepCopy())
		case Delete:
			err = r.delete(ctx, a.ReplicaSet)
		case SetRevision:
			d, err = r.setRevision(ctx, d, a.Revision)
		case RollBack:
			r.Events.Event(d, corev1.EventTypeWarning, RolledBackReason, a.Message)
		case Refuse:
			r.Events.Event(d, corev1.EventTypeWarning, SelectingAllReason, a.Why())
		}
		return loop.OrStale(err)
	})
	return d, err
}

func (r *Reconciler) create(ctx context.Context, d *appsv1.Deployment, set *appsv1.ReplicaSet) error {
	set.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, r.Kind.GroupVersionKind)}
	stored, err := r.Create(ctx, d, set)
	switch {
	case err == nil:
		r.sayScaled(d, stored.Name, 0, *stored.Spec.Replicas)
		return nil
	case errors.Is(err, loop.ErrNamespaceEnds):
		return err
	case apierrors.IsAlreadyExists(err):
		live, _, err := r.Children.Get(ctx, r.Live, client.ObjectKeyFromObject(set))
		if err != nil {
			return fmt.Errorf("reading ReplicaSet %s, which exists already: %w", set.Name, err)
		}
		if metav1.IsControlledBy(live, d) && util.EqualIgnoreHash(&live.Spec.Template, &set.Spec.Template) {
			return loop.ErrStale // it is ours: the cache will show it
		}
		return errCollision
	}
	err = createError{fmt.Errorf("Failed to create new replica set %q: %w", set.Name, err)} //nolint:staticcheck // upstream's words, for people
	if ctx.Err() == nil {
		r.Events.Event(d, corev1.EventTypeWarning, util.FailedRSCreateReason, err.Error())
	}
	return err
}

func (r *Reconciler) update(ctx context.Context, d *appsv1.Deployment, before, after *appsv1.ReplicaSet) error {
	after.ResourceVersion = before.ResourceVersion // which may be that of its adoption, a moment ago
	if _, err := r.Update(ctx, d, before, after); err != nil {
		return fmt.Errorf("updating ReplicaSet %s: %w", before.Name, err)
	}
	r.sayScaled(d, before.Name, *before.Spec.Replicas, *after.Spec.Replicas)
	return nil
}

func (r *Reconciler) delete(ctx context.Context, seen *appsv1.ReplicaSet) error {
	set := r.Children.New()
	set.SetNamespace(seen.Namespace)
	set.SetName(seen.Name)
	preconditions := client.Preconditions{UID: &seen.UID, ResourceVersion: &seen.ResourceVersion}
	return client.IgnoreNotFound(r.Client.Delete(ctx, set, preconditions, client.PropagationPolicy(metav1.DeletePropagationBackground)))
}

func (r *Reconciler) setRevision(ctx context.Context, d *appsv1.Deployment, revision string) (*appsv1.Deployment, error) {
	after := d.DeepCopy()
	util.SetDeploymentRevision(after, revision)
	stored, err := r.Kind.Patch(ctx, r.Client, d, after)
	if err != nil {
		return d, fmt.Errorf("writing the revision of Deployment %s: %w", d.Name, err)
	}
	r.Writes.Wrote(d, r.Kind.Resource, stored)
	return stored, nil
}

func (r *Reconciler) sayScaled(d *appsv1.Deployment, set string, from, to int32) {
	way := lo.Ternary(from > to, "down", "up")
	if from != to {
		r.Events.Eventf(d, corev1.EventTypeNormal, ScalingReplicaSetReason, "Scaled %s replica set %s from %d to %d", way, set, from, to)
	}
}
