package replicaset

import (
	"context"
	"errors"
	"slices"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"

	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/internal/loop"
)

// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets,verbs=get;list;watch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets/status,verbs=patch
// +kubebuilder:rbac:groups=apps;apps.flyball.dev,resources=replicasets/finalizers,verbs=update
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch;create;patch;delete
// +kubebuilder:rbac:groups="",resources=events,verbs=create;patch

// Reconciler is the loop for the ReplicaSets of one API group.
type Reconciler struct {
	*loop.Loop[*appsv1.ReplicaSet, *corev1.Pod]
}

// Register adds the loop for a group's ReplicaSets to a manager.
func Register(manager loop.Manager, group kinds.Group) error {
	base, err := loop.New(manager, group.ReplicaSets, kinds.Pods(), What)
	if err != nil {
		return err
	}
	r := &Reconciler{base}
	r.Look = r.look
	concerns := r.Concerns(func(set *appsv1.ReplicaSet) *metav1.LabelSelector { return set.Spec.Selector })
	return r.Watch(manager).
		Watches(&corev1.Pod{}, handler.EnqueueRequestsFromMapFunc(concerns), builder.WithPredicates(podChanges())).
		Complete(r)
}

// look observes, plans and acts.
func (r *Reconciler) look(ctx context.Context, set *appsv1.ReplicaSet, options kinds.Options) (*loop.Report[*appsv1.ReplicaSet], error) {
	state, err := Observe(ctx, r.Kind, r.Client, set, options)
	if err != nil {
		return nil, err
	}
	alive := sets.New(lo.FilterMap(state.Pods, func(pod *corev1.Pod, _ int) (types.UID, bool) { return pod.UID, pod.DeletionTimestamp == nil })...)
	state.Deleting = r.Writes.Deleting(client.ObjectKeyFromObject(set), alive)
	plan := NewPlan(state)
	failure := r.act(ctx, set, plan)
	state.Deleting = r.Writes.Deleting(client.ObjectKeyFromObject(set), alive) // those that were deleted just now, too
	after := *set
	after.Status = NewStatus(state, plan, failure)
	report := &loop.Report[*appsv1.ReplicaSet]{
		Before: set, After: &after, Kept: kinds.Status{Selector: metav1.FormatLabelSelector(set.Spec.Selector)}, Next: NextLook(state, plan),
	}
	if errors.As(failure, new(refused)) {
		failure = nil // the condition and the Event say it; only a change of the spec helps
	}
	return report, failure
}

// Observe is what reader knows of a ReplicaSet.
func Observe(ctx context.Context, kind kinds.Kind[*appsv1.ReplicaSet], reader client.Reader, set *appsv1.ReplicaSet, options kinds.Options) (State, error) {
	state := State{ReplicaSet: set, PodsToDelete: sets.New(options.PodsToDelete...), Now: metav1.Now()}
	pods := func(which client.ListOption) ([]*corev1.Pod, error) {
		return kinds.Pods().List(ctx, reader, client.InNamespace(set.Namespace), which, client.UnsafeDisableDeepCopy)
	}
	own, err := pods(loop.ControlledBy(set.UID))
	if err != nil {
		return state, err
	}
	orphans, err := pods(loop.Orphans())
	state.Pods = slices.Concat(own, orphans)
	controllerRef := metav1.GetControllerOfNoCopy(set)
	if err != nil || controllerRef == nil || len(state.Pods) <= int(ptr.Deref(set.Spec.Replicas, 1)) {
		return state, err
	}
	siblings, err := kind.List(ctx, reader, client.InNamespace(set.Namespace), loop.ControlledBy(controllerRef.UID), client.UnsafeDisableDeepCopy)
	if err != nil {
		return state, err
	}
	state.Neighbours = map[string]int{}
	for _, sibling := range siblings {
		theirs, err := pods(loop.ControlledBy(sibling.UID))
		if err != nil {
			return state, err
		}
		for _, pod := range theirs {
			if controller.IsPodActive(pod) {
				state.Neighbours[pod.Spec.NodeName]++
			}
		}
	}
	return state, nil
}

// podChanges keeps away updates in which nothing changed that a plan or a status looks at; most of a Pod's do not.
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
