package deployment

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/action"
	"flyball.dev/controllers/internal/controllerref"
	"flyball.dev/controllers/internal/expectations"
)

// Reasons of Events. The first two, like the messages, are upstream's: tools search for them.
const (
	ScalingReplicaSetReason = "ScalingReplicaSet"
	SelectingAllReason      = "SelectingAll"
	RolledBackReason        = "RolledBack"
)

var (
	// errCollision says that a ReplicaSet of another template, or of another owner, has the name.
	errCollision = errors.New("the name of the new ReplicaSet is taken")
	// errCreate says that the API server did not take a ReplicaSet, in upstream's words.
	errCreate = errors.New("Failed to create new replica set") //nolint:staticcheck // for people
)

// act carries a plan out until the first error, and returns the Deployment as last written.
func (r *Reconciler) act(ctx context.Context, d *appsv1.Deployment, plan Plan) (*appsv1.Deployment, error) {
	mayAdopt := sync.OnceValue(func() error { return controllerref.MayAdopt(ctx, r.Live, r.Deployments, d) })
	for _, step := range plan.Actions {
		klog.FromContext(ctx).V(2).Info("Acting", "action", step.String(), "reason", step.Why())
		var err error
		switch a := step.(type) {
		case action.Adopt:
			if err = mayAdopt(); err == nil {
				ref := *metav1.NewControllerRef(d, r.Deployments.GroupVersionKind)
				err = controllerref.Replace(ctx, r.Client, r.Expectations, r.ReplicaSets, d, a.Object.(*appsv1.ReplicaSet), ref)
			}
		case action.Release:
			err = controllerref.Replace(ctx, r.Client, r.Expectations, r.ReplicaSets, d, a.Object.(*appsv1.ReplicaSet))
		case Create:
			err = r.create(ctx, d, a.ReplicaSet)
		case Update:
			err = r.update(ctx, d, a.Before, a.After)
		case Delete:
			err = r.delete(ctx, a.ReplicaSet)
		case SetRevision:
			d, err = r.setRevision(ctx, d, a.Revision)
		case RollBack:
			r.Events.Event(d, corev1.EventTypeWarning, RolledBackReason, a.Status.Message)
		case action.Refuse:
			r.Events.Event(d, corev1.EventTypeWarning, SelectingAllReason, a.Why())
		}
		action.Count("deployment", r.Deployments.Group, step, err)
		if err != nil {
			return d, expectations.OrStale(err)
		}
	}
	return d, nil
}

func (r *Reconciler) create(ctx context.Context, d *appsv1.Deployment, set *appsv1.ReplicaSet) error {
	set.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(d, r.Deployments.GroupVersionKind)}
	stored, err := r.ReplicaSets.Create(ctx, r.Client, set)
	switch {
	case err == nil:
		r.Expectations.Wrote(d, r.ReplicaSets.Resource, stored)
		r.recordScaled(d, stored.Name, 0, *stored.Spec.Replicas)
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return err
	case apierrors.IsAlreadyExists(err):
		live, _, err := r.ReplicaSets.Get(ctx, r.Live, client.ObjectKeyFromObject(set))
		if err != nil {
			return fmt.Errorf("reading ReplicaSet %s, which exists already: %w", set.Name, err)
		}
		if metav1.IsControlledBy(live, d) && util.EqualIgnoreHash(&live.Spec.Template, &set.Spec.Template) {
			return expectations.ErrStale // it is the Deployment's: the cache will show it
		}
		return errCollision
	}
	err = fmt.Errorf("%w %q: %w", errCreate, set.Name, err)
	if ctx.Err() == nil {
		r.Events.Event(d, corev1.EventTypeWarning, util.FailedRSCreateReason, err.Error())
	}
	return err
}

func (r *Reconciler) update(ctx context.Context, d *appsv1.Deployment, before, after *appsv1.ReplicaSet) error {
	after.ResourceVersion = before.ResourceVersion // which may be that of its adoption, a moment ago
	stored, err := r.ReplicaSets.Patch(ctx, r.Client, before, after)
	if err != nil {
		return fmt.Errorf("updating ReplicaSet %s: %w", before.Name, err)
	}
	r.Expectations.Wrote(d, r.ReplicaSets.Resource, stored)
	r.recordScaled(d, before.Name, *before.Spec.Replicas, *after.Spec.Replicas)
	return nil
}

func (r *Reconciler) delete(ctx context.Context, set *appsv1.ReplicaSet) error {
	object := r.ReplicaSets.Write(set, v1alpha1.OptionsStatus{})
	preconditions := client.Preconditions{UID: &set.UID, ResourceVersion: &set.ResourceVersion}
	background := client.PropagationPolicy(metav1.DeletePropagationBackground)
	return client.IgnoreNotFound(r.Client.Delete(ctx, object, preconditions, background))
}

func (r *Reconciler) setRevision(ctx context.Context, d *appsv1.Deployment, to string) (*appsv1.Deployment, error) {
	after := d.DeepCopy()
	util.SetDeploymentRevision(after, to)
	stored, err := r.Deployments.Patch(ctx, r.Client, d, after)
	if err != nil {
		return d, fmt.Errorf("writing the revision of Deployment %s: %w", d.Name, err)
	}
	r.Expectations.Wrote(d, r.Deployments.Resource, stored)
	return stored, nil
}

func (r *Reconciler) recordScaled(d *appsv1.Deployment, set string, from, to int32) {
	if from != to {
		r.Events.Eventf(d, corev1.EventTypeNormal, ScalingReplicaSetReason, "Scaled %s replica set %s from %d to %d",
			lo.Ternary(from > to, "down", "up"), set, from, to)
	}
}
