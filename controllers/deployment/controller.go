package deployment

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	runtimecontroller "sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"flyball.dev/controllers/internal/actions"
	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/internal/owner"
	"flyball.dev/controllers/internal/writes"
)

// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments/status,verbs=patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// Component is the source that Events name; upstream's name, because tools know it.
const Component = "deployment-controller"

// Reconciler is the loop for the Deployments of one API group.
type Reconciler struct {
	kinds.Group
	// Client reads from the cache, Live from the API server.
	Client   client.Client
	Live     client.Reader
	Recorder record.EventRecorder
	// DeploymentCache and SetCache are the caches that Client reads from.
	DeploymentCache, SetCache writes.Cache

	writes  *writes.Tracker
	events  events
	metrics actions.Counter
}

// Register adds the loop to a manager.
func (r *Reconciler) Register(manager ctrl.Manager, name string, options runtimecontroller.Options) error {
	r.writes = writes.New(map[schema.GroupResource]writes.Cache{
		r.Deployments.Resource: r.DeploymentCache, r.ReplicaSets.Resource: r.SetCache,
	})
	r.events = events{r.Recorder}
	r.metrics = newMetrics(ctrlmetrics.Registry, r.Deployments.GroupVersionKind.Group)
	return ctrl.NewControllerManagedBy(manager).Named(name).WithOptions(options).
		For(r.Deployments.New()).
		Watches(r.ReplicaSets.New(), handler.EnqueueRequestsFromMapFunc(r.deploymentsOf)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), builder.WithPredicates(podEnds())).
		Complete(r)
}

// Reconcile looks at one Deployment.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if !r.writes.CaughtUp(request.NamespacedName) {
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil // a safety net: the event of the missing write comes first
	}
	d, options, err := r.Deployments.GetOptions(ctx, r.Client, request.NamespacedName)
	if apierrors.IsNotFound(err) {
		r.writes.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading Deployment %s: %w", request, err)
	}
	state, err := r.observe(ctx, d, options)
	if err != nil {
		return ctrl.Result{}, err
	}
	plan := NewPlan(state)
	d, failure := r.act(ctx, d, plan)
	select {
	case <-ctx.Done():
		return ctrl.Result{}, nil // the end of the process is no failure
	default:
	}
	status, kept := plan.Status, plan.Kept
	var creation createError
	switch {
	case errors.Is(failure, errNamespaceEnds):
		return ctrl.Result{}, nil
	case errors.Is(failure, errStale), errors.Is(failure, owner.ErrLeaving):
		return ctrl.Result{RequeueAfter: time.Second}, nil // a safety net: the event of the change comes first
	case errors.Is(failure, errCollision):
		status, kept, failure = CollidedStatus(state), options.Status, nil // the status that we write is the event that brings us back
	case errors.As(failure, &creation):
		status = FailedStatus(state, creation.name, creation.error)
	case failure != nil:
		return ctrl.Result{}, failure
	}
	if r.Deployments.GroupVersionKind.Group != appsv1.GroupName {
		status = waitable(d, status, state.Now)
	}
	err = r.report(ctx, d, status, options.Status, r.Deployments.Keeps(kept))
	return ctrl.Result{RequeueAfter: plan.Next}, errors.Join(failure, err)
}

// Explain observes a Deployment of the group's own type and plans, and does no more. It needs the Group and a Client only.
func (r *Reconciler) Explain(ctx context.Context, object client.Object) (Plan, error) {
	state, err := r.observe(ctx, r.Deployments.Canonical(object), r.Deployments.Options(object))
	if err != nil {
		return Plan{}, err
	}
	return NewPlan(state), nil
}

func (r *Reconciler) observe(ctx context.Context, d *appsv1.Deployment, options kinds.Options) (State, error) {
	state := State{Deployment: d, Options: options, Now: metav1.Now()}
	for _, which := range []client.ListOption{owner.ControlledBy(d.UID), owner.Orphans()} {
		sets, err := r.ReplicaSets.List(ctx, r.Client, client.InNamespace(d.Namespace), which, client.UnsafeDisableDeepCopy)
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
		var pods corev1.PodList
		if err := r.Client.List(ctx, &pods, client.InNamespace(d.Namespace), owner.ControlledBy(set.UID), client.UnsafeDisableDeepCopy); err != nil {
			return state, fmt.Errorf("listing Pods: %w", err)
		}
		for i := range pods.Items {
			if !podutil.IsPodTerminal(&pods.Items[i]) {
				state.Running[set.UID]++
			}
			if crashes(&pods.Items[i], options) {
				state.Crashing[set.UID]++
			}
		}
	}
	return state, nil
}

// looksAtPods says whether planning needs more than ReplicaSets.
func looksAtPods(d *appsv1.Deployment, options kinds.Options) bool {
	return d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || options.Rollback != nil && options.Rollback.OnCrashLoop != nil
}

// crashes says whether a Pod counts as one that rollback.onCrashLoop is about.
func crashes(pod *corev1.Pod, options kinds.Options) bool {
	return options.Rollback != nil && options.Rollback.OnCrashLoop != nil && pod.DeletionTimestamp == nil &&
		!podutil.IsPodReady(pod) && mostRestarts(pod) >= options.Rollback.OnCrashLoop.Restarts
}

func mostRestarts(pod *corev1.Pod) int32 {
	most := int32(0)
	for _, statuses := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for _, status := range statuses {
			most = max(most, status.RestartCount)
		}
	}
	return most
}

func (r *Reconciler) report(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus, was, is kinds.Status) error {
	if equality.Semantic.DeepEqual(d.Status, status) && equality.Semantic.DeepEqual(was, is) {
		return nil
	}
	after := d.DeepCopy()
	after.Status = status
	stored, err := r.Deployments.PatchStatus(ctx, r.Client, d, after, was, is)
	switch {
	case err == nil:
		r.writes.Wrote(d, r.Deployments.Resource, stored)
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // the event of the other write brings us back
	default:
		return fmt.Errorf("writing the status of Deployment %s/%s: %w", d.Namespace, d.Name, err)
	}
	return nil
}

// deploymentsOf are the Deployments that a ReplicaSet concerns: its controller, or all that might adopt it.
func (r *Reconciler) deploymentsOf(ctx context.Context, object client.Object) []reconcile.Request {
	if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
		if !owner.Is(ref, r.Deployments.GroupVersionKind) {
			return nil
		}
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: ref.Name}}}
	}
	if object.GetDeletionTimestamp() != nil || len(object.GetLabels()) == 0 {
		return nil
	}
	all, err := r.Deployments.List(ctx, r.Client, client.InNamespace(object.GetNamespace()), client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil
	}
	var requests []reconcile.Request
	for _, d := range all {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(object.GetLabels())) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(d)})
		}
	}
	return requests
}

// waitingFor is the Deployment that may have waited for a Pod to end, or to crash.
func (r *Reconciler) waitingFor(ctx context.Context, pod client.Object) []reconcile.Request {
	ref := metav1.GetControllerOfNoCopy(pod)
	if ref == nil || !owner.Is(ref, r.ReplicaSets.GroupVersionKind) {
		return nil
	}
	set, err := r.ReplicaSets.Get(ctx, r.Client, types.NamespacedName{Namespace: pod.GetNamespace(), Name: ref.Name})
	if err != nil || set.UID != ref.UID {
		return nil
	}
	ref = metav1.GetControllerOfNoCopy(set)
	if ref == nil || !owner.Is(ref, r.Deployments.GroupVersionKind) {
		return nil
	}
	key := types.NamespacedName{Namespace: pod.GetNamespace(), Name: ref.Name}
	d, options, err := r.Deployments.GetOptions(ctx, r.Client, key)
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
