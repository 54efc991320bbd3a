package deployment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/controllerref"
	"flyball.dev/controllers/internal/expectations"
	"flyball.dev/controllers/internal/kinds"
)

// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments/status,verbs=patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=deployments/finalizers,verbs=update
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// Reconciler is the loop for the Deployments of one API group.
type Reconciler struct {
	Deployments kinds.Kind[*appsv1.Deployment]
	ReplicaSets kinds.Kind[*appsv1.ReplicaSet]
	// Client reads from the cache, Live from the API server.
	Client       client.Client
	Live         client.Reader
	Events       record.EventRecorder
	Expectations *expectations.Tracker // about Deployments and ReplicaSets
}

// Watch declares what enqueues a Deployment: changes of it, of its ReplicaSets and of their Pods.
func (r *Reconciler) Watch(loop *builder.Builder) *builder.Builder {
	return loop.
		For(r.Deployments.New()).
		Watches(r.ReplicaSets.New(), handler.EnqueueRequestsFromMapFunc(r.ownersOf)).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.waitingFor), builder.WithPredicates(podEnds()))
}

// Reconcile moves the rollout of one Deployment a step on, and reports how far it is.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	// 1. Get the Deployment. The caches must hold what the loop last wrote for it.
	if !r.Expectations.Satisfied(request.NamespacedName) {
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil // a safety net: the event of the missing write comes first
	}
	d, options, err := r.Deployments.Get(ctx, r.Client, request.NamespacedName)
	if apierrors.IsNotFound(err) {
		r.Expectations.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading Deployment %s: %w", request, err)
	}

	// 2. Observe its ReplicaSets, and plan.
	state, err := Observe(ctx, r.Client, r.ReplicaSets, d, options)
	if err != nil {
		return ctrl.Result{}, err
	}
	plan := NewPlan(state)

	// 3. Act.
	d, failure := r.act(ctx, d, plan)
	switch {
	case errors.Is(failure, expectations.ErrStale):
		return ctrl.Result{RequeueAfter: time.Second}, nil // a safety net: the event of the change comes first
	case apierrors.HasStatusCause(failure, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil // no ReplicaSet can be created, and none is needed
	case errors.Is(failure, errCollision):
		// The count gives the next hash. The event of this status enqueues the Deployment again.
		plan.Status, plan.OptionsStatus, failure = *d.Status.DeepCopy(), options.Status, nil
		plan.Status.CollisionCount = new(ptr.Deref(d.Status.CollisionCount, 0) + 1)
	case errors.Is(failure, errCreate):
		plan.Status = FailedStatus(state, failure.Error())
	case failure != nil:
		return ctrl.Result{}, failure
	}

	// 4. Report.
	after := *d
	after.Status = plan.Status
	if r.Deployments.Group != appsv1.GroupName {
		after.Status = withKstatus(d, plan.Status, state.Now)
	}
	err = r.Deployments.PatchStatus(ctx, r.Client, r.Expectations, d, &after, options.Status, plan.OptionsStatus)
	return ctrl.Result{RequeueAfter: plan.Next}, errors.Join(failure, err)
}

// ownersOf maps a ReplicaSet to the Deployments to reconcile when it changes.
func (r *Reconciler) ownersOf(ctx context.Context, set client.Object) []ctrl.Request {
	selector := func(d *appsv1.Deployment) *metav1.LabelSelector { return d.Spec.Selector }
	return controllerref.Owners(ctx, r.Client, r.Deployments, selector, set)
}

// Observe reads what a plan for a Deployment needs.
func Observe(
	ctx context.Context, reader client.Reader, replicaSets kinds.Kind[*appsv1.ReplicaSet],
	d *appsv1.Deployment, options v1alpha1.Options,
) (State, error) {
	sets, err := controllerref.Candidates(ctx, reader, replicaSets, d)
	state := State{Deployment: d, ReplicaSets: sets, Options: options, Now: metav1.Now()}
	if err != nil || !needsPods(d, options) {
		return state, err
	}
	state.Running, state.Crashing = map[types.UID]int{}, map[types.UID]int{}
	for _, set := range sets {
		pods, err := controllerref.Controlled(ctx, reader, kinds.Pods(), d.Namespace, set.UID)
		if err != nil {
			return state, err
		}
		state.Running[set.UID] = lo.CountBy(pods, func(pod *corev1.Pod) bool { return !podutil.IsPodTerminal(pod) })
		state.Crashing[set.UID] = lo.CountBy(pods, func(pod *corev1.Pod) bool {
			policy := options.Rollback.OnCrashLoop
			return policy != nil && pod.DeletionTimestamp == nil && !podutil.IsPodReady(pod) && mostRestarts(pod) >= policy.Restarts
		})
	}
	return state, nil
}

// needsPods says whether planning needs more than ReplicaSets.
func needsPods(d *appsv1.Deployment, options v1alpha1.Options) bool {
	return d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType || options.Rollback.OnCrashLoop != nil
}

func mostRestarts(pod *corev1.Pod) int32 {
	all := slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
	return lo.Max(lo.Map(all, func(status corev1.ContainerStatus, _ int) int32 { return status.RestartCount }))
}

// waitingFor maps a Pod to the Deployment that may have waited for it to end, or to crash.
func (r *Reconciler) waitingFor(ctx context.Context, pod client.Object) []ctrl.Request {
	ref := metav1.GetControllerOfNoCopy(pod)
	if !controllerref.IsOf(ref, r.ReplicaSets.GroupVersionKind) {
		return nil
	}
	set, _, err := r.ReplicaSets.Get(ctx, r.Client, types.NamespacedName{Namespace: pod.GetNamespace(), Name: ref.Name})
	if err != nil || set.UID != ref.UID || metav1.GetControllerOfNoCopy(set) == nil {
		return nil
	}
	return lo.Filter(r.ownersOf(ctx, set), func(request ctrl.Request, _ int) bool {
		d, options, err := r.Deployments.Get(ctx, r.Client, request.NamespacedName)
		return err == nil && needsPods(d, options)
	})
}

// podEnds passes a Pod that has ended, or whose restarts, or readiness after a restart, changed.
func podEnds() predicate.Predicate {
	return predicate.Funcs{
		CreateFunc: func(event.CreateEvent) bool { return false },
		UpdateFunc: func(update event.UpdateEvent) bool {
			before, after := update.ObjectOld.(*corev1.Pod), update.ObjectNew.(*corev1.Pod)
			return !podutil.IsPodTerminal(before) && podutil.IsPodTerminal(after) ||
				mostRestarts(before) != mostRestarts(after) ||
				mostRestarts(after) > 0 && podutil.IsPodReady(before) != podutil.IsPodReady(after)
		},
	}
}
