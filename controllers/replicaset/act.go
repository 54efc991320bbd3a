package replicaset

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/action"
	"flyball.dev/controllers/internal/controllerref"
	"flyball.dev/controllers/internal/kinds"
)

// parallel bounds the requests that one ReplicaSet has in flight. The API server's CPU is what
// creation waits for; more requests would only delay those of others.
const parallel = 64

// refused is why a plan does nothing. Trying again helps no more than waiting does.
type refused string

func (r refused) Error() string { return string(r) }

// act carries a plan out until the first error. Its Events are upstream's: tools search for them.
func (r *Reconciler) act(ctx context.Context, set *appsv1.ReplicaSet, plan Plan) error {
	mayAdopt := sync.OnceValue(func() error { return controllerref.MayAdopt(ctx, r.Live, r.Kind, set) })
	for _, step := range plan.Actions {
		klog.FromContext(ctx).V(2).Info("Acting", "action", step.String(), "reason", step.Why())
		var err error
		switch a := step.(type) {
		case action.Adopt:
			if err = mayAdopt(); err == nil {
				ref := *metav1.NewControllerRef(set, r.Kind.GroupVersionKind)
				err = controllerref.Replace(ctx, r.Client, r.Expectations, kinds.Pods(), set, a.Object.(*corev1.Pod), ref)
			}
		case action.Release:
			err = controllerref.Replace(ctx, r.Client, r.Expectations, kinds.Pods(), set, a.Object.(*corev1.Pod))
		case Create:
			// A slow start: what fails for one Pod (a quota, an admission rule) fails for most.
			err = inBatches(a.Count, 1, func(int) error { return r.create(ctx, set) })
		case Delete:
			err = inBatches(len(a.Pods), len(a.Pods), func(i int) error { return r.delete(ctx, set, a.Pods[i]) })
		case action.Refuse:
			err = refused(a.Why())
			r.Events.Eventf(set, corev1.EventTypeWarning, controller.FailedCreatePodReason, "Error creating: %v", err)
		}
		action.Count("replicaset", r.Kind.Group, step, err)
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Reconciler) create(ctx context.Context, set *appsv1.ReplicaSet) error {
	ref := metav1.NewControllerRef(set, r.Kind.GroupVersionKind)
	pod, err := controller.GetPodFromTemplate(&set.Spec.Template, set, ref)
	if err != nil {
		return fmt.Errorf("rendering a Pod from the template: %w", err)
	}
	pod.Namespace = set.Namespace
	err = r.Client.Create(ctx, pod)
	switch {
	case err == nil:
		r.Expectations.Wrote(set, kinds.Pods().Resource, pod)
		r.Events.Eventf(set, corev1.EventTypeNormal, controller.SuccessfulCreatePodReason, "Created pod: %v", pod.Name)
	case ctx.Err() == nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		r.Events.Eventf(set, corev1.EventTypeWarning, controller.FailedCreatePodReason, "Error creating: %v", err)
	}
	return err
}

func (r *Reconciler) delete(ctx context.Context, set *appsv1.ReplicaSet, pod *corev1.Pod) error {
	err := r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		if ctx.Err() == nil {
			r.Events.Eventf(set, corev1.EventTypeWarning, controller.FailedDeletePodReason, "Error deleting: %v", err)
		}
		return fmt.Errorf("unable to delete pods: %w", err)
	}
	// Not found, or of another UID: another client deleted it.
	r.Expectations.Deleted(client.ObjectKeyFromObject(set), pod.UID)
	if err == nil {
		r.Events.Eventf(set, corev1.EventTypeNormal, controller.SuccessfulDeletePodReason, "Deleted pod: %v", pod.Name)
	}
	return nil
}

// inBatches calls fn for 0 to count-1 in batches of size, twice size, four times size and so on,
// the calls of a batch in parallel, and stops after a batch in which one failed.
func inBatches(count, size int, fn func(int) error) error {
	for begin := 0; begin < count; begin, size = begin+size, size*2 {
		var group errgroup.Group
		group.SetLimit(parallel)
		for i := begin; i < min(begin+size, count); i++ {
			group.Go(func() error { return fn(i) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
	}
	return nil
}
