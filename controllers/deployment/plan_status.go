package deployment

import (
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"k8s.io/utils/ptr"

	"flyball.dev/apis/apps/v1alpha1"
)

// countPods sums up the ReplicaSets as the plan leaves them.
func (r *rollout) countPods() {
	all, updated := r.all(), r.current
	if r.optionsStatus.Rollback != nil {
		updated = r.failed
	}
	r.status = appsv1.DeploymentStatus{
		ObservedGeneration:  r.Deployment.Generation,
		Replicas:            util.GetActualReplicaCountForReplicaSets(all),
		UpdatedReplicas:     util.GetActualReplicaCountForReplicaSets([]*appsv1.ReplicaSet{updated}),
		ReadyReplicas:       util.GetReadyReplicaCountForReplicaSets(all),
		AvailableReplicas:   util.GetAvailableReplicaCountForReplicaSets(all),
		TerminatingReplicas: util.GetTerminatingReplicaCountForReplicaSets(all),
		CollisionCount:      r.status.CollisionCount,
		Conditions:          r.status.Conditions,
	}
	r.status.UnavailableReplicas = max(0, size(all...)-r.status.AvailableReplicas)
	if r.status.AvailableReplicas >= r.replicas-r.unavailable {
		r.setCondition(appsv1.DeploymentAvailable, corev1.ConditionTrue,
			util.MinimumReplicasAvailable, "Deployment has minimum availability.")
	} else {
		r.setCondition(appsv1.DeploymentAvailable, corev1.ConditionFalse,
			util.MinimumReplicasUnavailable, "Deployment does not have minimum availability.")
	}
}

// judge sets the condition Progressing: complete, progressing, or timed out.
func (r *rollout) judge() {
	subject := fmt.Sprintf("Deployment %q", r.Deployment.Name)
	if r.current != nil {
		subject = fmt.Sprintf("ReplicaSet %q", r.current.Name)
	}
	last := r.progressing()
	left, counting := r.timeLeft()
	switch {
	case !util.HasProgressDeadline(r.Deployment):
		util.RemoveDeploymentCondition(&r.status, appsv1.DeploymentProgressing)
	case r.optionsStatus.Rollback != nil:
		// The condition says that it failed, until the template changes.
	case last.Reason == util.NewRSAvailableReason && r.status.Replicas == r.status.UpdatedReplicas:
		// A complete rollout is not judged again when Pods fail later.
	case util.DeploymentComplete(r.Deployment, &r.status):
		r.setProgressing(corev1.ConditionTrue, util.NewRSAvailableReason, subject+" has successfully progressed.")
	case r.keep > 0 && r.status.UpdatedReplicas == r.replicas-r.keep &&
		r.status.Replicas == r.replicas && r.status.AvailableReplicas == r.replicas:
		// All Pods are available, and only those that the partition keeps are old.
		r.setProgressing(corev1.ConditionTrue, v1alpha1.PartitionReachedReason,
			fmt.Sprintf("%s has %d Pods; %d stay on old revisions until the partition is lowered.",
				subject, r.replicas-r.keep, r.keep))
	case util.DeploymentProgressing(r.Deployment, &r.status), last.Reason == v1alpha1.PartitionReachedReason:
		// Unlike other conditions this one is renewed although its reason stays: lastUpdateTime is
		// the time of the last progress, from which the deadline counts.
		since := r.Now
		if last.Status == corev1.ConditionTrue {
			since = last.LastTransitionTime
		}
		util.RemoveDeploymentCondition(&r.status, appsv1.DeploymentProgressing)
		util.SetDeploymentCondition(&r.status, appsv1.DeploymentCondition{
			Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, LastUpdateTime: r.Now, LastTransitionTime: since,
			Reason: util.ReplicaSetUpdatedReason, Message: subject + " is progressing.",
		})
	case counting && left <= 0:
		r.setProgressing(corev1.ConditionFalse, util.TimedOutReason, subject+" has timed out progressing.")
	}
}

// timeLeft returns the time until the progress deadline. counting is false before a rollout has set
// its condition Progressing, and after its end.
func (r *rollout) timeLeft() (left time.Duration, counting bool) {
	last := r.progressing()
	ends := []string{"", util.TimedOutReason, util.NewRSAvailableReason, v1alpha1.PartitionReachedReason}
	if !util.HasProgressDeadline(r.Deployment) || r.optionsStatus.Rollback != nil || slices.Contains(ends, last.Reason) {
		return 0, false
	}
	deadline := last.LastUpdateTime.Add(time.Duration(*r.Deployment.Spec.ProgressDeadlineSeconds) * time.Second)
	return deadline.Sub(r.Now.Time), true
}

// copyFailure copies the condition ReplicaFailure of the newest ReplicaSet that has it.
func (r *rollout) copyFailure() {
	for _, set := range slices.Backward(r.all()) {
		for _, c := range set.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				util.SetDeploymentCondition(&r.status, util.ReplicaSetToDeploymentCondition(c))
				return
			}
		}
	}
	util.RemoveDeploymentCondition(&r.status, appsv1.DeploymentReplicaFailure)
}

// recordPause keeps the time of a pause from counting against the deadline.
func (r *rollout) recordPause() {
	last := r.progressing()
	paused := last.Reason == util.PausedDeployReason
	switch {
	case last.Reason == util.TimedOutReason: // a failure that was reported stays reported
	case r.Deployment.Spec.Paused && !paused:
		r.setProgressing(corev1.ConditionUnknown, util.PausedDeployReason, "Deployment is paused")
	case !r.Deployment.Spec.Paused && paused:
		r.setProgressing(corev1.ConditionUnknown, util.ResumedDeployReason, "Deployment is resumed")
	}
}

// progressing returns the condition Progressing, which is empty if there is none.
func (r *rollout) progressing() appsv1.DeploymentCondition {
	return ptr.Deref(util.GetDeploymentCondition(r.status, appsv1.DeploymentProgressing), appsv1.DeploymentCondition{})
}

func (r *rollout) setProgressing(value corev1.ConditionStatus, reason, message string) {
	if util.HasProgressDeadline(r.Deployment) {
		r.setCondition(appsv1.DeploymentProgressing, value, reason, message)
	}
}

func (r *rollout) setCondition(of appsv1.DeploymentConditionType, is corev1.ConditionStatus, reason, message string) {
	util.SetDeploymentCondition(&r.status, appsv1.DeploymentCondition{
		Type: of, Status: is, LastUpdateTime: r.Now, LastTransitionTime: r.Now, Reason: reason, Message: message,
	})
}

// FailedStatus returns the status with the reason why a ReplicaSet could not be created.
func FailedStatus(s State, message string) appsv1.DeploymentStatus {
	r := &rollout{State: s, status: *s.Deployment.Status.DeepCopy()}
	r.setProgressing(corev1.ConditionFalse, util.FailedRSCreateReason, message)
	return r.status
}

// withKstatus adds the conditions of kstatus. They are for our own kind: tools know the status of
// apps/v1.
func withKstatus(d *appsv1.Deployment, status appsv1.DeploymentStatus, now metav1.Time) appsv1.DeploymentStatus {
	is := appsv1.DeploymentCondition{
		Type: v1alpha1.Reconciling, Status: corev1.ConditionTrue, LastUpdateTime: now, LastTransitionTime: now,
		Reason: v1alpha1.RollingOutReason, Message: "Not all Pods are of the current template and available.",
	}
	progressing := util.GetDeploymentCondition(status, appsv1.DeploymentProgressing)
	switch {
	case progressing != nil && progressing.Status == corev1.ConditionFalse:
		is.Type, is.Reason, is.Message = v1alpha1.Stalled, progressing.Reason, progressing.Message
	case progressing != nil && progressing.Reason == v1alpha1.PartitionReachedReason, util.DeploymentComplete(d, &status):
		is.Type = ""
	}
	for _, of := range []appsv1.DeploymentConditionType{v1alpha1.Reconciling, v1alpha1.Stalled} {
		if of == is.Type {
			util.SetDeploymentCondition(&status, is)
		} else {
			util.RemoveDeploymentCondition(&status, of)
		}
	}
	return status
}
