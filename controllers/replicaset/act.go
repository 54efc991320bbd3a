package replicaset

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/loop"
)

// parallel bounds the requests that one ReplicaSet has in flight. The API server's CPU is what creation waits for; more
// would only queue there, before everybody else's.
const parallel = 64

// refused is why a plan does nothing. Trying again helps no more than waiting does.
type refused string

func (r refused) Error() string { return string(r) }

// act carries a plan out.
func (r *Reconciler) act(ctx context.Context, set *appsv1.ReplicaSet, plan Plan) error {
	err := r.Act(ctx, set, plan.Actions, func(action Action) error {
		switch a := action.(type) {
		case Create:
			return slowStart(a.Count, func() error { return r.create(ctx, set) })
		case Delete:
			return inParallel(len(a.Pods), func(i int) error { return r.delete(ctx, set, a.Pods[i]) })
		case Refuse:
			r.Events.Eventf(set, corev1.EventTypeWarning, controller.FailedCreatePodReason, "Error creating: %v", a.Why())
			return refused(a.Why())
		}
		return nil
	})
	if errors.Is(err, loop.ErrNamespaceEnds) {
		return nil
	}
	return err
}

func (r *Reconciler) create(ctx context.Context, set *appsv1.ReplicaSet) error {
	pod, err := controller.GetPodFromTemplate(&set.Spec.Template, set, metav1.NewControllerRef(set, r.Kind.GroupVersionKind))
	if err != nil {
		return fmt.Errorf("rendering a Pod from the template: %w", err)
	}
	pod.Namespace = set.Namespace
	stored, err := r.Create(ctx, set, pod)
	switch {
	case err == nil:
		r.Events.Eventf(set, corev1.EventTypeNormal, controller.SuccessfulCreatePodReason, "Created pod: %v", stored.Name)
	case ctx.Err() == nil && !errors.Is(err, loop.ErrNamespaceEnds):
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
	// Not found, or of another UID: gone before us, and just as good.
	r.Writes.Deleted(client.ObjectKeyFromObject(set), pod.UID)
	if err == nil {
		r.Events.Eventf(set, corev1.EventTypeNormal, controller.SuccessfulDeletePodReason, "Deleted pod: %v", pod.Name)
	}
	return nil
}

// slowStart calls fn count times in batches of 1, 2, 4, …, the calls of a batch in parallel, and stops after a batch in
// which one failed. What fails for one Pod (a quota, an admission rule) mostly fails for all: then one request, not
// hundreds, is wasted per attempt.
func slowStart(count int, fn func() error) error {
	for batch := 1; count > 0; batch *= 2 {
		n := min(batch, count)
		if err := inParallel(n, func(int) error { return fn() }); err != nil {
			return err
		}
		count -= n
	}
	return nil
}

// inParallel calls fn for 0 to count-1 and returns one of the errors, if there are any, after the last call.
func inParallel(count int, fn func(int) error) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range count {
		group.Go(func() error { return fn(i) })
	}
	return group.Wait()
}
