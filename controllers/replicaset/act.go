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
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/internal/owner"
)

// parallel bounds the requests that one ReplicaSet has in flight. The API server's CPU is what creation waits for; more
// would only queue there, before everybody else's.
const parallel = 64

var (
	// errNamespaceEnds says that a namespace is being deleted: nothing can be created there, and nothing needs to be.
	errNamespaceEnds = errors.New("the namespace is being deleted")
	// errStale says that a Pod is no longer as it was observed, so that the rest of the plan means nothing.
	errStale = errors.New("a Pod changed after it was observed")
)

// refused is why a plan does nothing. Trying again helps no more than waiting does.
type refused string

func (r refused) Error() string { return string(r) }

// act carries a plan out, in order, and stops at the first error.
func (r *Reconciler) act(ctx context.Context, set *appsv1.ReplicaSet, plan Plan) error {
	alive := false
	for _, action := range plan.Actions {
		klog.FromContext(ctx).V(2).Info("Acting", "action", action.What(), "reason", action.Why())
		var err error
		switch a := action.(type) {
		case Release:
			err = r.handOver(ctx, set, a.Pod, owner.Released(a.Pod, set))
		case Adopt:
			if !alive {
				live, getErr := r.Kind.Get(ctx, r.Live, client.ObjectKeyFromObject(set))
				if err = owner.CheckAlive(set, live, getErr); err != nil {
					return err
				}
				alive = true
			}
			err = r.handOver(ctx, set, a.Pod, owner.Adopted(a.Pod, set, r.Kind.GroupVersionKind))
		case Create:
			err = r.slowStart(a.Count, func() error { return r.create(ctx, set) })
		case Delete:
			err = r.inParallel(len(a.Pods), func(i int) error { return r.delete(ctx, set, a.Pods[i]) })
		case Refuse:
			err = r.refuse(set, a)
		}
		r.metrics.Count(action, err)
		if err != nil && !errors.Is(err, errNamespaceEnds) {
			return err
		}
	}
	return nil
}

func (r *Reconciler) handOver(ctx context.Context, set *appsv1.ReplicaSet, pod *corev1.Pod, refs []metav1.OwnerReference) error {
	stored, err := owner.PatchPod(ctx, r.Client, pod, refs)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return errStale
	}
	if err != nil {
		return fmt.Errorf("changing the controller of Pod %s: %w", pod.Name, err)
	}
	r.writes.Wrote(set, podResource, stored)
	return nil
}

func (r *Reconciler) create(ctx context.Context, set *appsv1.ReplicaSet) error {
	pod, err := controller.GetPodFromTemplate(&set.Spec.Template, set, metav1.NewControllerRef(set, r.Kind.GroupVersionKind))
	if err != nil {
		return fmt.Errorf("rendering a Pod from the template: %w", err)
	}
	pod.Namespace = set.Namespace
	err = r.Client.Create(ctx, pod)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return errNamespaceEnds
	}
	if err != nil {
		if ctx.Err() == nil {
			r.events.failedCreate(set, err)
		}
		return err
	}
	r.writes.Wrote(set, podResource, pod)
	r.events.created(set, pod)
	return nil
}

func (r *Reconciler) delete(ctx context.Context, set *appsv1.ReplicaSet, pod *corev1.Pod) error {
	err := r.Client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		if ctx.Err() == nil {
			r.events.failedDelete(set, err)
		}
		return fmt.Errorf("unable to delete pods: %w", err)
	}
	// Not found, or of another UID: gone before us, and just as good.
	r.writes.Deleted(client.ObjectKeyFromObject(set), pod.UID)
	if err == nil {
		r.events.deleted(set, pod)
	}
	return nil
}

func (r *Reconciler) refuse(set *appsv1.ReplicaSet, refusal Refuse) error {
	err := refused(refusal.Why())
	r.events.failedCreate(set, err)
	return err
}

// slowStart calls fn count times in batches of 1, 2, 4, …, the calls of a batch in parallel, and stops after a batch in
// which one failed. What fails for one Pod (a quota, an admission rule) mostly fails for all: then one request, not
// hundreds, is wasted per attempt.
func (r *Reconciler) slowStart(count int, fn func() error) error {
	for batch := 1; count > 0; batch *= 2 {
		n := min(batch, count)
		if err := r.inParallel(n, func(int) error { return fn() }); err != nil {
			return err
		}
		count -= n
	}
	return nil
}

// inParallel calls fn for 0 to count-1 and returns one of the errors, if there are any, after the last call.
func (r *Reconciler) inParallel(count int, fn func(int) error) error {
	var group errgroup.Group
	group.SetLimit(parallel)
	for i := range count {
		group.Go(func() error { return fn(i) })
	}
	return group.Wait()
}
