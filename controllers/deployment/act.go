package deployment

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/owner"
)

var (
	// errStale says that something is no longer as it was observed, so that the rest of the plan means nothing.
	errStale = errors.New("something changed after it was observed")
	// errCollision says that a ReplicaSet of another template, or of another owner, has the name.
	errCollision = errors.New("the name of the new ReplicaSet is taken")
	// errNamespaceEnds says that a namespace is being deleted: nothing can be created there, and nothing needs to be.
	errNamespaceEnds = errors.New("the namespace is being deleted")
)

// createError is why the API server did not take a ReplicaSet.
type createError struct {
	name string
	error
}

func (e createError) Unwrap() error { return e.error }

// actor carries one plan out.
type actor struct {
	*Reconciler
	deployment *appsv1.Deployment
	// versions are the resourceVersions of ReplicaSets after earlier actions of the same plan.
	versions map[types.UID]string
	alive    bool
}

// act carries a plan out, in order, and stops at the first error. It returns the Deployment as last written.
func (r *Reconciler) act(ctx context.Context, d *appsv1.Deployment, plan Plan) (*appsv1.Deployment, error) {
	a := &actor{Reconciler: r, deployment: d, versions: map[types.UID]string{}}
	for _, action := range plan.Actions {
		klog.FromContext(ctx).V(2).Info("Acting", "action", action.What(), "reason", action.Why())
		err := a.do(ctx, action)
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			err = errStale
		}
		r.metrics.Count(action, err)
		if err != nil {
			return a.deployment, err
		}
	}
	return a.deployment, nil
}

func (a *actor) do(ctx context.Context, action Action) error {
	switch action := action.(type) {
	case Adopt:
		if err := a.checkAlive(ctx); err != nil {
			return err
		}
		return a.handOver(ctx, action.ReplicaSet, owner.Adopted(action.ReplicaSet, a.deployment, a.Deployments.GroupVersionKind))
	case Release:
		return a.handOver(ctx, action.ReplicaSet, owner.Released(action.ReplicaSet, a.deployment))
	case Create:
		return a.create(ctx, action.ReplicaSet)
	case Update:
		return a.update(ctx, action)
	case Delete:
		set := action.ReplicaSet
		preconditions := client.Preconditions{UID: &set.UID, ResourceVersion: &set.ResourceVersion}
		object := a.ReplicaSets.New()
		object.SetNamespace(set.Namespace)
		object.SetName(set.Name)
		return client.IgnoreNotFound(a.Client.Delete(ctx, object, preconditions, client.PropagationPolicy(metav1.DeletePropagationBackground)))
	case SetRevision:
		after := a.deployment.DeepCopy()
		annotateDeployment(after, action.Revision)
		stored, err := a.Deployments.Patch(ctx, a.Client, a.deployment, after)
		if err != nil {
			return fmt.Errorf("writing the revision of Deployment %s: %w", a.deployment.Name, err)
		}
		a.writes.Wrote(a.deployment, a.Deployments.Resource, stored)
		a.deployment = stored
	case RollBack:
		a.events.rolledBack(a.deployment, action)
	case Refuse:
		a.events.refused(a.deployment, action)
	}
	return nil
}

func (a *actor) checkAlive(ctx context.Context) error {
	if a.alive {
		return nil
	}
	live, err := a.Deployments.Get(ctx, a.Live, client.ObjectKeyFromObject(a.deployment))
	if err = owner.CheckAlive(a.deployment, live, err); err != nil {
		return err
	}
	a.alive = true
	return nil
}

func (a *actor) handOver(ctx context.Context, set *appsv1.ReplicaSet, refs []metav1.OwnerReference) error {
	after := set.DeepCopy()
	after.OwnerReferences = refs
	stored, err := a.patch(ctx, set, after)
	if err != nil {
		return fmt.Errorf("changing the controller of ReplicaSet %s: %w", set.Name, err)
	}
	a.versions[set.UID] = stored.ResourceVersion
	return nil
}

func (a *actor) update(ctx context.Context, update Update) error {
	before, after := update.Before.DeepCopy(), update.After.DeepCopy()
	if version, ok := a.versions[before.UID]; ok {
		before.ResourceVersion, after.ResourceVersion = version, version
	}
	if _, err := a.patch(ctx, before, after); err != nil {
		return fmt.Errorf("updating ReplicaSet %s: %w", before.Name, err)
	}
	if from, to := ptr.Deref(before.Spec.Replicas, 1), ptr.Deref(after.Spec.Replicas, 1); from != to {
		a.events.scaled(a.deployment, before.Name, from, to)
	}
	return nil
}

func (a *actor) patch(ctx context.Context, before, after *appsv1.ReplicaSet) (*appsv1.ReplicaSet, error) {
	stored, err := a.ReplicaSets.Patch(ctx, a.Client, before, after)
	if err == nil {
		a.writes.Wrote(a.deployment, a.ReplicaSets.Resource, stored)
	}
	return stored, err
}

func (a *actor) create(ctx context.Context, set *appsv1.ReplicaSet) error {
	set = set.DeepCopy()
	set.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(a.deployment, a.Deployments.GroupVersionKind)}
	stored, err := a.ReplicaSets.Create(ctx, a.Client, set)
	switch {
	case err == nil:
		a.writes.Wrote(a.deployment, a.ReplicaSets.Resource, stored)
		if size := ptr.Deref(stored.Spec.Replicas, 1); size > 0 {
			a.events.scaled(a.deployment, stored.Name, 0, size)
		}
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return errNamespaceEnds
	case apierrors.IsAlreadyExists(err):
		live, err := a.ReplicaSets.Get(ctx, a.Live, client.ObjectKeyFromObject(set))
		if err != nil {
			return fmt.Errorf("reading ReplicaSet %s, which exists already: %w", set.Name, err)
		}
		if metav1.IsControlledBy(live, a.deployment) && sameTemplate(&live.Spec.Template, &set.Spec.Template) {
			return errStale // it is ours: the cache will show it
		}
		return errCollision
	}
	if ctx.Err() == nil {
		a.events.failedCreate(a.deployment, set.Name, err)
	}
	return createError{set.Name, err}
}

func annotateDeployment(d *appsv1.Deployment, revision string) {
	if d.Annotations == nil {
		d.Annotations = map[string]string{}
	}
	d.Annotations[RevisionAnnotation] = revision
}
