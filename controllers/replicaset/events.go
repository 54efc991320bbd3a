package replicaset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
)

// Reasons of Events beside those that are conditions' too.
const (
	SuccessfulCreateReason = "SuccessfulCreate"
	SuccessfulDeleteReason = "SuccessfulDelete"
)

// events says on the ReplicaSet what was done, in upstream's words: people and tools look for them.
type events struct{ record.EventRecorder }

func (e events) created(set *appsv1.ReplicaSet, pod *corev1.Pod) {
	e.Eventf(set, corev1.EventTypeNormal, SuccessfulCreateReason, "Created pod: %v", pod.Name)
}

func (e events) failedCreate(set *appsv1.ReplicaSet, err error) {
	e.Eventf(set, corev1.EventTypeWarning, FailedCreateReason, "Error creating: %v", err)
}

func (e events) deleted(set *appsv1.ReplicaSet, pod *corev1.Pod) {
	e.Eventf(set, corev1.EventTypeNormal, SuccessfulDeleteReason, "Deleted pod: %v", pod.Name)
}

func (e events) failedDelete(set *appsv1.ReplicaSet, err error) {
	e.Eventf(set, corev1.EventTypeWarning, FailedDeleteReason, "Error deleting: %v", err)
}
