package replicaset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/controller"
)

// The reasons and messages of Events are upstream's, because people and tools search for them.

func (r *Reconciler) recordCreated(set *appsv1.ReplicaSet, pod *corev1.Pod) {
	r.events.Eventf(set, corev1.EventTypeNormal, controller.SuccessfulCreatePodReason, "Created pod: %v", pod.Name)
}

func (r *Reconciler) recordDeleted(set *appsv1.ReplicaSet, pod *corev1.Pod) {
	r.events.Eventf(set, corev1.EventTypeNormal, controller.SuccessfulDeletePodReason, "Deleted pod: %v", pod.Name)
}

func (r *Reconciler) recordNotCreated(set *appsv1.ReplicaSet, err error) {
	r.events.Eventf(set, corev1.EventTypeWarning, controller.FailedCreatePodReason, "Error creating: %v", err)
}

func (r *Reconciler) recordNotDeleted(set *appsv1.ReplicaSet, err error) {
	r.events.Eventf(set, corev1.EventTypeWarning, controller.FailedDeletePodReason, "Error deleting: %v", err)
}
