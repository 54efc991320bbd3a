package replicaset

import (
	"time"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
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
	template := labels.SelectorFromSet(set.Spec.Template.Labels)
	count := func(is func(*corev1.Pod) bool) int32 { return int32(lo.CountBy(plan.Active, is)) }
	status := appsv1.ReplicaSetStatus{
		ObservedGeneration:   set.Generation,
		Replicas:             int32(len(plan.Active)),
		FullyLabeledReplicas: count(func(pod *corev1.Pod) bool { return template.Matches(labels.Set(pod.Labels)) }),
		ReadyReplicas:        count(podutil.IsPodReady),
		AvailableReplicas:    count(func(pod *corev1.Pod) bool { return podutil.IsPodAvailable(pod, set.Spec.MinReadySeconds, s.Now) }),
		TerminatingReplicas:  new(int32(len(plan.Terminating))),
	}
	failing := false
	for _, condition := range set.Status.Conditions {
		isFailure := condition.Type == appsv1.ReplicaSetReplicaFailure
		if !isFailure || failure != nil { // a failure stays as it began for as long as it lasts
			status.Conditions = append(status.Conditions, condition)
		}
		failing = failing || isFailure
	}
	if failure != nil && !failing {
		reason := FailedCreateReason
		if len(plan.Active) > int(ptr.Deref(set.Spec.Replicas, 1)) {
			reason = FailedDeleteReason
		}
		status.Conditions = append(status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue,
			LastTransitionTime: s.Now, Reason: reason, Message: failure.Error(),
		})
	}
	return status
}

// NextLook is how long it takes until a Pod becomes available by the mere passing of time; 0 if none will.
func NextLook(s State, plan Plan) time.Duration {
	var next time.Duration
	minReady := time.Duration(s.ReplicaSet.Spec.MinReadySeconds) * time.Second
	for _, pod := range plan.Active {
		if minReady == 0 || !podutil.IsPodReady(pod) {
			continue
		}
		if left := podutil.GetPodReadyCondition(pod.Status).LastTransitionTime.Add(minReady).Sub(s.Now.Time); left > 0 && (next == 0 || left < next) {
			next = left
		}
	}
	return next
}
