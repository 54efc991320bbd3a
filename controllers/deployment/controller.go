package deployment

import (
	"context"
	"errors"
	"slices"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/internal/loop"
)

// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments/status,verbs=patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// Reconciler is the loop for the Deployments of one API group.
type Reconciler struct {
	*loop.Loop[*appsv1.Deployment, *appsv1.ReplicaSet]
}

// Register adds the loop for a group's Deployments to a manager.
func Register(manager loop.Manager, group kinds.Group) error {
	base, err := loop.New(manager, group.Deployments, group.ReplicaSets, What)
	if err != nil {
		return err
	}
	r := &Reconciler{base}
	r.Look = r.look
	concerns := r.Concerns(func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector })
	return r.Watch(manager).
		Watches(r.Children.New(), handler.EnqueueRequestsFromMapFunc(concerns)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), builder.WithPredicates(podEnds())).
		Complete(r)
}

// look observes, plans and acts.
func (r *Reconciler) look(ctx context.Context, d *appsv1.Deployment, options kinds.Options) (*loop.Report[*appsv1.Deployment], error) {
	state, err := Observe(ctx, r.Children, r.Client, d, options)
	if err != nil {
		return nil, err
	}
	plan := NewPlan(state)
	d, failure := r.act(ctx, d, plan)
	var creation createError
	switch {
	case errors.Is(failure, loop.ErrNamespaceEnds):
		return nil, nil
	case errors.Is(failure, errCollision):
		plan.Status, plan.Kept, failure = CollidedStatus(state), options.Status, nil // the status that we write is the event that brings us back
	case errors.As(failure, &creation):
		plan.Status = FailedStatus(state, creation.Error())
	case failure != nil:
		return nil, failure
	}
	after := *d
	after.Status = plan.Status
	if r.Kind.GroupVersionKind.Group != appsv1.GroupName {
		after.Status = waitable(d, plan.Status, state.Now)
	}
	return &loop.Report[*appsv1.Deployment]{Before: d, After: &after, Kept: plan.Kept, Next: plan.Next}, failure
}

// Observe is what reader knows of a Deployment.
func Observe(ctx context.Context, replicaSets kinds.Kind[*appsv1.ReplicaSet], reader client.Reader, d *appsv1.Deployment, options kinds.Options) (State, error) {
	state := State{Deployment: d, Options: options, Now: metav1.Now()}
	for _, which := range []client.ListOption{loop.ControlledBy(d.UID), loop.Orphans()} {
		sets, err := replicaSets.List(ctx, reader, client.InNamespace(d.Namespace), which, client.UnsafeDisableDeepCopy)
		if err != nil {
			return state, err
		}
		state.ReplicaSets = append(state.ReplicaSets, sets...)
	}
	if !looksAtPods(d, options) {
		return state, nil
	}
	state.Running, state.Crashing = map[types.UID]int{}, map[types.UID]int{}
	for _, set := range state.ReplicaSets {
		pods, err := kinds.Pods().List(ctx, reader, client.InNamespace(d.Namespace), loop.ControlledBy(set.UID), client.UnsafeDisableDeepCopy)
		if err != nil {
			return state, err
		}
		state.Running[set.UID] = lo.CountBy(pods, func(pod *corev1.Pod) bool { return !podutil.IsPodTerminal(pod) })
		state.Crashing[set.UID] = lo.CountBy(pods, func(pod *corev1.Pod) bool { return crashes(pod, options) })
	}
	return state, nil
}

// looksAtPods says whether planning needs more than ReplicaSets.
func looksAtPods(d *appsv1.Deployment, options kinds.Options) bool {
	return d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || options.Rollback.OnCrashLoop != nil
}

// crashes says whether a Pod counts as one that rollback.onCrashLoop is about.
func crashes(pod *corev1.Pod, options kinds.Options) bool {
	return options.Rollback.OnCrashLoop != nil && pod.DeletionTimestamp == nil &&
		!podutil.IsPodReady(pod) && mostRestarts(pod) >= options.Rollback.OnCrashLoop.Restarts
}

func mostRestarts(pod *corev1.Pod) int32 {
	most := int32(0)
	for _, status := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		most = max(most, status.RestartCount)
	}
	return most
}

// waitingFor is the Deployment that may have waited for a Pod to end, or to crash.
func (r *Reconciler) waitingFor(ctx context.Context, pod client.Object) []reconcile.Request {
	ref := metav1.GetControllerOfNoCopy(pod)
	if !loop.IsOf(ref, r.Children.GroupVersionKind) {
		return nil
	}
	set, _, err := r.Children.Get(ctx, r.Client, types.NamespacedName{Namespace: pod.GetNamespace(), Name: ref.Name})
	if err != nil || set.UID != ref.UID {
		return nil
	}
	ref = metav1.GetControllerOfNoCopy(set)
	if !loop.IsOf(ref, r.Kind.GroupVersionKind) {
		return nil
	}
	key := types.NamespacedName{Namespace: pod.GetNamespace(), Name: ref.Name}
	d, options, err := r.Kind.Get(ctx, r.Client, key)
	if err != nil || !looksAtPods(d, options) {
		return nil
	}
	return []reconcile.Request{{NamespacedName: key}}
}

// podEnds lets the two ways through in which a Pod stops running, and that one that crashed did so again or is not ready.
func podEnds() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(update event.UpdateEvent) bool {
			before, after := update.ObjectOld.(*corev1.Pod), update.ObjectNew.(*corev1.Pod)
			return !podutil.IsPodTerminal(before) && podutil.IsPodTerminal(after) || mostRestarts(before) != mostRestarts(after) ||
				mostRestarts(after) > 0 && podutil.IsPodReady(before) != podutil.IsPodReady(after)
		},
	}
}
