package deployment

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of kstatus (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus), which are absent when all is
// well. Helm's --wait and others take an object of a kind that they do not know for ready unless one of them is True.
const (
	Reconciling appsv1.DeploymentConditionType = "Reconciling"
	Stalled     appsv1.DeploymentConditionType = "Stalled"

	rollingOutReason = "RollingOut"
)

// waitable is a status from which a stranger sees whether the rollout is over. It is for our own kind: that of apps/v1 is
// known, and has upstream's conditions only.
func waitable(d *appsv1.Deployment, status appsv1.DeploymentStatus, now metav1.Time) appsv1.DeploymentStatus {
	is := appsv1.DeploymentCondition{
		Type: Reconciling, Reason: rollingOutReason, Message: "Not all Pods are of the current template and available.",
		Status: corev1.ConditionTrue, LastUpdateTime: now, LastTransitionTime: now,
	}
	progressing := condition(status, appsv1.DeploymentProgressing)
	switch {
	case progressing != nil && progressing.Status == corev1.ConditionFalse:
		is.Type, is.Reason, is.Message = Stalled, progressing.Reason, progressing.Message
	case progressing != nil && progressing.Reason == PartitionReachedReason, complete(d, &status):
		is.Type = ""
	}
	for _, of := range []appsv1.DeploymentConditionType{Reconciling, Stalled} {
		if of == is.Type {
			put(&status, is)
		} else {
			remove(&status, of)
		}
	}
	return status
}
