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
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/record"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/controller"
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

// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets/status,verbs=patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// Component is the source that Events name; upstream's name, because tools know it.
const Component = "replicaset-controller"

var podResource = schema.GroupResource{Resource: "pods"}

// Reconciler is the loop for the ReplicaSets of one API group.
type Reconciler struct {
	Kind kinds.Kind[*appsv1.ReplicaSet]
	// Client reads from the cache, Live from the API server.
	Client   client.Client
	Live     client.Reader
	Recorder record.EventRecorder
	// Pods and Sets are the caches that Client reads from.
	Pods, Sets writes.Cache

	writes  *writes.Tracker
	events  events
	metrics actions.Counter
}

// Register adds the loop to a manager.
func (r *Reconciler) Register(manager ctrl.Manager, name string, options runtimecontroller.Options) error {
	r.writes = writes.New(map[schema.GroupResource]writes.Cache{podResource: r.Pods, r.Kind.Resource: r.Sets})
	r.events = events{r.Recorder}
	r.metrics = newMetrics(ctrlmetrics.Registry, r.Kind.GroupVersionKind.Group)
	return ctrl.NewControllerManagedBy(manager).Named(name).WithOptions(options).
		For(r.Kind.New()).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(r.setsOf), builder.WithPredicates(podChanges())).
		Complete(r)
}

// Reconcile looks at one ReplicaSet.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if !r.writes.CaughtUp(request.NamespacedName) {
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil // a safety net: the event of the missing write comes first
	}
	set, options, err := r.Kind.GetOptions(ctx, r.Client, request.NamespacedName)
	if apierrors.IsNotFound(err) {
		r.writes.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading ReplicaSet %s: %w", request, err)
	}
	state, err := r.observe(ctx, set, options)
	if err != nil {
		return ctrl.Result{}, err
	}
	plan := NewPlan(state)
	failure := r.act(ctx, set, plan)
	select {
	case <-ctx.Done():
		return ctrl.Result{}, nil // the end of the process is no failure
	default:
	}
	if errors.Is(failure, errStale) || errors.Is(failure, owner.ErrLeaving) {
		return ctrl.Result{RequeueAfter: time.Second}, nil // a safety net: the event of the change comes first
	}
	err = r.report(ctx, set, NewStatus(state, plan, failure), options.Status)
	if errors.As(failure, new(refused)) {
		failure = nil // the condition and the Event say it; only a change of the spec helps
	}
	return ctrl.Result{RequeueAfter: NextLook(state, plan)}, errors.Join(failure, err)
}

// Explain observes a ReplicaSet of the group's own type and plans, and does no more. It needs the Kind and a Client only.
func (r *Reconciler) Explain(ctx context.Context, object client.Object) (State, Plan, error) {
	r.writes = writes.New(nil)
	state, err := r.observe(ctx, r.Kind.Canonical(object), r.Kind.Options(object))
	if err != nil {
		return state, Plan{}, err
	}
	return state, NewPlan(state), nil
}

func (r *Reconciler) observe(ctx context.Context, set *appsv1.ReplicaSet, options kinds.Options) (State, error) {
	state := State{ReplicaSet: set, PodsToDelete: sets.New(options.PodsToDelete...), Now: metav1.Now()}
	for _, which := range []client.ListOption{owner.ControlledBy(set.UID), owner.Orphans()} {
		pods, err := r.pods(ctx, set.Namespace, which)
		if err != nil {
			return state, err
		}
		state.Pods = append(state.Pods, pods...)
	}
	alive := sets.New[types.UID]()
	for _, pod := range state.Pods {
		if pod.DeletionTimestamp == nil {
			alive.Insert(pod.UID)
		}
	}
	state.Deleting = r.writes.Deleting(client.ObjectKeyFromObject(set), alive)
	if !needsNeighbours(set, state.Pods) {
		return state, nil
	}
	siblings, err := r.Kind.List(ctx, r.Client, client.InNamespace(set.Namespace),
		owner.ControlledBy(metav1.GetControllerOfNoCopy(set).UID))
	if err != nil {
		return state, err
	}
	state.Neighbours = map[string]int{}
	for _, sibling := range siblings {
		pods, err := r.pods(ctx, set.Namespace, owner.ControlledBy(sibling.UID))
		if err != nil {
			return state, err
		}
		for _, pod := range pods {
			if controller.IsPodActive(pod) {
				state.Neighbours[pod.Spec.NodeName]++
			}
		}
	}
	return state, nil
}

func (r *Reconciler) pods(ctx context.Context, namespace string, which client.ListOption) ([]*corev1.Pod, error) {
	var list corev1.PodList
	if err := r.Client.List(ctx, &list, client.InNamespace(namespace), which, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing Pods: %w", err)
	}
	pods := make([]*corev1.Pod, 0, len(list.Items))
	for i := range list.Items {
		pods = append(pods, &list.Items[i])
	}
	return pods, nil
}

func (r *Reconciler) report(ctx context.Context, set *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus, was kinds.Status) error {
	is := r.Kind.Keeps(kinds.Status{Selector: metav1.FormatLabelSelector(set.Spec.Selector)})
	if equality.Semantic.DeepEqual(set.Status, status) && was == is {
		return nil
	}
	after := set.DeepCopy()
	after.Status = status
	stored, err := r.Kind.PatchStatus(ctx, r.Client, set, after, was, is)
	switch {
	case err == nil:
		r.writes.Wrote(set, r.Kind.Resource, stored)
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // the event of the other write brings us back
	default:
		return fmt.Errorf("writing the status of ReplicaSet %s/%s: %w", set.Namespace, set.Name, err)
	}
	return nil
}

// setsOf are the ReplicaSets that a Pod concerns: its controller, or all that might adopt it.
func (r *Reconciler) setsOf(ctx context.Context, object client.Object) []reconcile.Request {
	key := types.NamespacedName{Namespace: object.GetNamespace()}
	if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
		if !owner.Is(ref, r.Kind.GroupVersionKind) {
			return nil
		}
		key.Name = ref.Name
		return []reconcile.Request{{NamespacedName: key}}
	}
	if object.GetDeletionTimestamp() != nil || len(object.GetLabels()) == 0 {
		return nil
	}
	all, err := r.Kind.List(ctx, r.Client, client.InNamespace(key.Namespace), client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil
	}
	var requests []reconcile.Request
	for _, set := range all {
		selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
		if err == nil && !selector.Empty() && selector.Matches(labels.Set(object.GetLabels())) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(set)})
		}
	}
	return requests
}

// podChanges keeps away updates in which nothing changed that a plan or a status looks at; most of a Pod's do not.
func podChanges() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(update event.UpdateEvent) bool {
		before, after := update.ObjectOld.(*corev1.Pod), update.ObjectNew.(*corev1.Pod)
		if metav1.GetControllerOfNoCopy(before) == nil && metav1.GetControllerOfNoCopy(after) == nil {
			return !equality.Semantic.DeepEqual(before.Labels, after.Labels)
		}
		return (before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) ||
			before.Status.Phase != after.Status.Phase ||
			!equality.Semantic.DeepEqual(podutil.GetPodReadyCondition(before.Status), podutil.GetPodReadyCondition(after.Status)) ||
			!equality.Semantic.DeepEqual(before.Labels, after.Labels) ||
			!equality.Semantic.DeepEqual(before.OwnerReferences, after.OwnerReferences)
	}}
}
