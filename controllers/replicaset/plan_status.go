package replicaset

import (
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"
)

// Reasons of the condition ReplicaFailure, and of the Events that go with it.
const (
	FailedCreateReason = "FailedCreate"
	FailedDeleteReason = "FailedDelete"
)

// NewStatus is what the ReplicaSet reports after a plan: the Pods that were observed, and failure if carrying the plan out
// failed.
func NewStatus(s State, plan Plan, failure error) appsv1.ReplicaSetStatus {
	set := s.ReplicaSet
	status := *set.Status.DeepCopy()
	status.ObservedGeneration = set.Generation
	status.Replicas = int32(len(plan.Active))
	status.FullyLabeledReplicas, status.ReadyReplicas, status.AvailableReplicas = 0, 0, 0
	status.TerminatingReplicas = new(int32(len(plan.Terminating)))
	template := labels.SelectorFromSet(set.Spec.Template.Labels)
	for _, pod := range plan.Active {
		if template.Matches(labels.Set(pod.Labels)) {
			status.FullyLabeledReplicas++
		}
		if podutil.IsPodReady(pod) {
			status.ReadyReplicas++
		}
		if podutil.IsPodAvailable(pod, set.Spec.MinReadySeconds, s.Now) {
			status.AvailableReplicas++
		}
	}
	status.Conditions = conditions(s, plan, failure)
	return status
}

// conditions keeps a ReplicaFailure as it began for as long as it lasts.
func conditions(s State, plan Plan, failure error) []appsv1.ReplicaSetCondition {
	var kept []appsv1.ReplicaSetCondition
	failing := false
	for _, condition := range s.ReplicaSet.Status.Conditions {
		if condition.Type == appsv1.ReplicaSetReplicaFailure {
			failing = true
			if failure == nil {
				continue
			}
		}
		kept = append(kept, condition)
	}
	if failure == nil || failing {
		return kept
	}
	reason := FailedCreateReason
	if len(plan.Active) > int(ptr.Deref(s.ReplicaSet.Spec.Replicas, 1)) {
		reason = FailedDeleteReason
	}
	return append(kept, appsv1.ReplicaSetCondition{
		Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
		LastTransitionTime: s.Now, Reason: reason, Message: failure.Error(),
	})
}

// NextLook is how long it takes until a Pod becomes available by the mere passing of time; 0 if none will.
func NextLook(s State, plan Plan) time.Duration {
	var next time.Duration
	minReady := time.Duration(s.ReplicaSet.Spec.MinReadySeconds) * time.Second
	for _, pod := range plan.Active {
		ready := podutil.GetPodReadyCondition(pod.Status)
		if minReady == 0 || ready == nil || ready.Status != corev1.ConditionTrue {
			continue
		}
		if left := ready.LastTransitionTime.Add(minReady).Sub(s.Now.Time); left > 0 && (next == 0 || left < next) {
			next = left
		}
	}
	return next
}

// needsNeighbours says whether planning needs State.Neighbours, which costs a look at other ReplicaSets.
func needsNeighbours(set *appsv1.ReplicaSet, pods []*corev1.Pod) bool {
	return len(pods) > int(ptr.Deref(set.Spec.Replicas, 1)) && metav1.GetControllerOfNoCopy(set) != nil
}
