package replicaset

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/kubernetes/pkg/controller"
	util "k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/utils/ptr"

	"flyball.dev/controllers/internal/action"
	"flyball.dev/controllers/internal/controllerref"
)

// burst is the maximum of Pods that one plan creates or deletes, so that the status of a large
// ReplicaSet shows the progress.
const burst = 500

// State is what the loop observed when it plans.
type State struct {
	ReplicaSet *appsv1.ReplicaSet
	// Pods are the ReplicaSet's Pods, and the Pods of the namespace that have no controller.
	Pods []*corev1.Pod
	// Deleting are Pods that this loop has deleted, and that the cache still shows undeleted.
	Deleting sets.Set[types.UID]
	// Neighbours counts, for scaling down, the active Pods of the Deployment per node.
	Neighbours map[string]int
	// PodsToDelete are the names of Pods that are deleted before all others.
	PodsToDelete sets.Set[string]
	Now          metav1.Time
}

// Create creates Pods from the template.
type Create struct {
	Count int
	action.Reason
}

func (c Create) String() string { return fmt.Sprintf("create %d Pods", c.Count) }

// Delete deletes Pods.
type Delete struct {
	Pods []*corev1.Pod
	action.Reason
}

func (d Delete) String() string {
	names := lo.Map(d.Pods, func(pod *corev1.Pod, _ int) string { return pod.Name })
	return fmt.Sprintf("delete %d Pods: %s", len(d.Pods), strings.Join(names, ", "))
}

// Plan has the actions to carry out, and the Pods on which they were decided.
type Plan struct {
	Actions []action.Action
	// Active are the ReplicaSet's Pods that count, Terminating those that are being deleted.
	Active, Terminating []*corev1.Pod
}

// NewPlan decides how a ReplicaSet gets the Pods that it wants.
func NewPlan(s State) Plan {
	selector, err := metav1.LabelSelectorAsSelector(s.ReplicaSet.Spec.Selector)
	if err != nil || selector.Empty() {
		refuse := action.Refuse{Reason: "the selector is empty or invalid: no Pod can be the ReplicaSet's"}
		return Plan{Actions: []action.Action{refuse}}
	}

	// 1. Orphans that match become the ReplicaSet's Pods; those that no longer match become
	// orphans. Finished Pods are neither active nor terminating.
	active, others := lo.FilterReject(s.Pods, func(pod *corev1.Pod, _ int) bool {
		return controller.IsPodActive(pod) && !s.Deleting.Has(pod.UID)
	})
	plan := Plan{Terminating: lo.Filter(others, func(pod *corev1.Pod, _ int) bool {
		return !podutil.IsPodTerminal(pod) &&
			metav1.IsControlledBy(pod, s.ReplicaSet) && selector.Matches(labels.Set(pod.Labels))
	})}
	plan.Active, plan.Actions = controllerref.Claim(s.ReplicaSet, selector, active)

	// 2. A ReplicaSet that is being deleted leaves its Pods to the garbage collector.
	if s.ReplicaSet.DeletionTimestamp != nil {
		return plan
	}

	// 3. Too few: create. Too many: delete.
	want, have := int(ptr.Deref(s.ReplicaSet.Spec.Replicas, 1)), len(plan.Active)
	reason := action.Reason(fmt.Sprintf("%d Pods wanted, %d there", want, have))
	switch {
	case have < want && !selector.Matches(labels.Set(s.ReplicaSet.Spec.Template.Labels)):
		reason = "the selector does not match the labels of the Pod template: every new Pod would be lost at once"
		plan.Actions = append(plan.Actions, action.Refuse{Reason: reason})
	case have < want:
		plan.Actions = append(plan.Actions, Create{min(want-have, burst), reason})
	case have > want:
		plan.Actions = append(plan.Actions, Delete{deletionOrder(s, plan.Active)[:min(have-want, burst)], reason})
	}
	return plan
}

// deletionOrder puts the Pods in PodsToDelete first, and sorts the others as upstream does: first
// Pods without a node, Pending, not ready, with a lower deletion cost, with more neighbours, ready
// for a shorter time, with more restarts, younger.
func deletionOrder(s State, pods []*corev1.Pod) []*corev1.Pod {
	ranks := lo.Map(pods, func(pod *corev1.Pod, _ int) int { return s.Neighbours[pod.Spec.NodeName] })
	ranked := controller.ActivePodsWithRanks{Pods: slices.Clone(pods), Rank: ranks, Now: s.Now}
	sort.Sort(ranked)
	named, rest := lo.FilterReject(ranked.Pods, func(pod *corev1.Pod, _ int) bool { return s.PodsToDelete.Has(pod.Name) })
	return slices.Concat(named, rest)
}

// NewStatus returns the status after a plan: it counts the observed Pods without those deleted
// since, and says why the plan failed, if it did.
func NewStatus(s State, plan Plan, failure error) appsv1.ReplicaSetStatus {
	set := s.ReplicaSet
	template, minReady := labels.SelectorFromSet(set.Spec.Template.Labels), set.Spec.MinReadySeconds
	leaving, active := lo.FilterReject(plan.Active, func(pod *corev1.Pod, _ int) bool { return s.Deleting.Has(pod.UID) })
	count := func(is func(*corev1.Pod) bool) int32 { return int32(lo.CountBy(active, is)) }
	status := appsv1.ReplicaSetStatus{
		ObservedGeneration:   set.Generation,
		Replicas:             int32(len(active)),
		FullyLabeledReplicas: count(func(pod *corev1.Pod) bool { return template.Matches(labels.Set(pod.Labels)) }),
		ReadyReplicas:        count(podutil.IsPodReady),
		AvailableReplicas:    count(func(pod *corev1.Pod) bool { return podutil.IsPodAvailable(pod, minReady, s.Now) }),
		TerminatingReplicas:  new(int32(len(plan.Terminating) + len(leaving))),
		Conditions:           slices.Clone(set.Status.Conditions),
	}
	switch {
	case failure == nil:
		util.RemoveCondition(&status, appsv1.ReplicaSetReplicaFailure)
	case util.GetCondition(status, appsv1.ReplicaSetReplicaFailure) == nil: // while a failure lasts, its first condition stays
		deleting := len(plan.Active) > int(ptr.Deref(set.Spec.Replicas, 1))
		util.SetCondition(&status, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, LastTransitionTime: s.Now,
			Reason:  lo.Ternary(deleting, controller.FailedDeletePodReason, controller.FailedCreatePodReason),
			Message: failure.Error(),
		})
	}
	return status
}

// NextReconcile returns the time until the next Pod has been ready for minReadySeconds; 0 if there
// is none to wait for.
func NextReconcile(s State, plan Plan) time.Duration {
	minReady := time.Duration(s.ReplicaSet.Spec.MinReadySeconds) * time.Second
	return lo.Min(lo.FilterMap(plan.Active, func(pod *corev1.Pod, _ int) (time.Duration, bool) {
		if minReady == 0 || !podutil.IsPodReady(pod) {
			return 0, false
		}
		left := podutil.GetPodReadyCondition(pod.Status).LastTransitionTime.Add(minReady).Sub(s.Now.Time)
		return left, left > 0
	}))
}
