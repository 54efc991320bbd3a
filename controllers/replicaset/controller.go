package replicaset

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
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/controller"
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

// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets/status,verbs=patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// Reconciler is the loop for the ReplicaSets of one API group.
type Reconciler struct {
	Kind kinds.Kind[*appsv1.ReplicaSet]
	// Client reads from the cache, Live from the API server.
	Client       client.Client
	Live         client.Reader
	Events       record.EventRecorder
	Expectations *expectations.Tracker // about ReplicaSets and Pods
}

// Watch declares what enqueues a ReplicaSet: its own changes, and those of its Pods.
func (r *Reconciler) Watch(loop *builder.Builder) *builder.Builder {
	return loop.
		For(r.Kind.New()).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.ownersOf), builder.WithPredicates(podChanges()))
}

// Reconcile makes one ReplicaSet have the Pods that it wants, and reports which it has.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	// 1. Get the ReplicaSet. The caches must hold what the loop last wrote for it.
	if !r.Expectations.Satisfied(request.NamespacedName) {
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil // a safety net: the event of the missing write comes first
	}
	set, options, err := r.Kind.Get(ctx, r.Client, request.NamespacedName)
	if apierrors.IsNotFound(err) {
		r.Expectations.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading ReplicaSet %s: %w", request, err)
	}

	// 2. Observe its Pods, and plan.
	state, err := Observe(ctx, r.Client, r.Kind, set, options)
	if err != nil {
		return ctrl.Result{}, err
	}
	state.Deleting = r.Expectations.Deleting(request.NamespacedName, state.Pods)
	plan := NewPlan(state)

	// 3. Act.
	failure := r.act(ctx, set, plan)
	switch {
	case errors.Is(failure, expectations.ErrStale):
		return ctrl.Result{RequeueAfter: time.Second}, nil // a safety net: the event of the change comes first
	case apierrors.HasStatusCause(failure, corev1.NamespaceTerminatingCause):
		failure = nil // no Pod can be created, and none is needed
	}

	// 4. Report, with the Pods that were deleted just now.
	state.Deleting = r.Expectations.Deleting(request.NamespacedName, state.Pods)
	after := *set
	after.Status = NewStatus(state, plan, failure)
	optionsStatus := v1alpha1.OptionsStatus{Selector: metav1.FormatLabelSelector(set.Spec.Selector)}
	err = r.Kind.PatchStatus(ctx, r.Client, r.Expectations, set, &after, options.Status, optionsStatus)
	if errors.As(failure, new(refused)) {
		failure = nil // the condition and the Event say it; only a change of the spec helps
	}
	return ctrl.Result{RequeueAfter: NextReconcile(state, plan)}, errors.Join(failure, err)
}

// ownersOf maps a Pod to the ReplicaSets to reconcile when it changes.
func (r *Reconciler) ownersOf(ctx context.Context, pod client.Object) []ctrl.Request {
	selector := func(set *appsv1.ReplicaSet) *metav1.LabelSelector { return set.Spec.Selector }
	return controllerref.Owners(ctx, r.Client, r.Kind, selector, pod)
}

// Observe is what reader knows of a ReplicaSet.
func Observe(
	ctx context.Context, reader client.Reader, kind kinds.Kind[*appsv1.ReplicaSet],
	set *appsv1.ReplicaSet, options v1alpha1.Options,
) (State, error) {
	pods, err := controllerref.Candidates(ctx, reader, kinds.Pods(), set)
	state := State{ReplicaSet: set, Pods: pods, PodsToDelete: sets.New(options.PodsToDelete...), Now: metav1.Now()}
	deployment := metav1.GetControllerOfNoCopy(set)
	if err != nil || deployment == nil || len(pods) <= int(ptr.Deref(set.Spec.Replicas, 1)) {
		return state, err
	}
	siblings, err := controllerref.Controlled(ctx, reader, kind, set.Namespace, deployment.UID)
	state.Neighbours = map[string]int{}
	for _, sibling := range siblings {
		if pods, err = controllerref.Controlled(ctx, reader, kinds.Pods(), set.Namespace, sibling.UID); err != nil {
			return state, err
		}
		for _, pod := range pods {
			if controller.IsPodActive(pod) {
				state.Neighbours[pod.Spec.NodeName]++
			}
		}
	}
	return state, err
}

// podChanges drops updates that neither plan nor status reads, which are most of a Pod's updates.
func podChanges() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(update event.UpdateEvent) bool {
		before, after := update.ObjectOld.(*corev1.Pod), update.ObjectNew.(*corev1.Pod)
		same := equality.Semantic.DeepEqual
		if metav1.GetControllerOfNoCopy(before) == nil && metav1.GetControllerOfNoCopy(after) == nil {
			return !same(before.Labels, after.Labels)
		}
		return (before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) ||
			before.Status.Phase != after.Status.Phase ||
			!same(podutil.GetPodReadyCondition(before.Status), podutil.GetPodReadyCondition(after.Status)) ||
			!same(before.Labels, after.Labels) || !same(before.OwnerReferences, after.OwnerReferences)
	}}
}
