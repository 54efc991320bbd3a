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
)

// Conditions of kstatus (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus),
// which are absent when all is well. Helm's --wait and others take an object of a kind that they do
// not know for ready unless one of them is True.
const (
	Reconciling appsv1.DeploymentConditionType = "Reconciling"
	Stalled     appsv1.DeploymentConditionType = "Stalled"

	rollingOutReason = "RollingOut"
)

// newStatus sums up the ReplicaSets as the plan leaves them. Progress is judged only during a
// rollout.
func (r *rollout) newStatus(progressing bool) appsv1.DeploymentStatus {
	all := sets(r.all())
	status := appsv1.DeploymentStatus{
		ObservedGeneration:  r.Deployment.Generation,
		Replicas:            util.GetActualReplicaCountForReplicaSets(all),
		ReadyReplicas:       util.GetReadyReplicaCountForReplicaSets(all),
		AvailableReplicas:   util.GetAvailableReplicaCountForReplicaSets(all),
		TerminatingReplicas: util.GetTerminatingReplicaCountForReplicaSets(all),
		CollisionCount:      r.status.CollisionCount,
		Conditions:          slices.Clone(r.status.Conditions),
	}
	status.UnavailableReplicas = max(0, size(r.all())-status.AvailableReplicas)
	updated := r.current
	if r.kept.Rollback != nil {
		updated = r.failed
	}
	if updated != nil {
		status.UpdatedReplicas = updated.want.Status.Replicas
	}
	if status.AvailableReplicas >= r.replicas-r.unavailable {
		r.set(&status, appsv1.DeploymentAvailable, corev1.ConditionTrue,
			util.MinimumReplicasAvailable, "Deployment has minimum availability.")
	} else {
		r.set(&status, appsv1.DeploymentAvailable, corev1.ConditionFalse,
			util.MinimumReplicasUnavailable, "Deployment does not have minimum availability.")
	}
	if progressing {
		r.judge(&status)
		r.copyFailure(&status)
	}
	return status
}

// judge sets the condition Progressing: complete, moving, or out of time. A complete rollout is not
// judged again when Pods fail later.
func (r *rollout) judge(status *appsv1.DeploymentStatus) {
	if !util.HasProgressDeadline(r.Deployment) {
		util.RemoveDeploymentCondition(status, appsv1.DeploymentProgressing)
		return
	}
	if r.kept.Rollback != nil {
		return // it failed, and says so until the template changes
	}
	last := util.GetDeploymentCondition(r.status, appsv1.DeploymentProgressing)
	if last != nil && last.Reason == util.NewRSAvailableReason && status.Replicas == status.UpdatedReplicas {
		return
	}
	subject := fmt.Sprintf("Deployment %q", r.Deployment.Name)
	if r.current != nil {
		subject = fmt.Sprintf("ReplicaSet %q", r.current.want.Name)
	}
	switch {
	case util.DeploymentComplete(r.Deployment, status):
		r.set(status, appsv1.DeploymentProgressing, corev1.ConditionTrue,
			util.NewRSAvailableReason, subject+" has successfully progressed.")
	case r.held(status):
		r.set(status, appsv1.DeploymentProgressing, corev1.ConditionTrue, PartitionReachedReason,
			fmt.Sprintf("%s has %d Pods; %d stay on old revisions until the partition is lowered.",
				subject, r.replicas-r.keep, r.keep))
	case util.DeploymentProgressing(r.Deployment, status), last != nil && last.Reason == PartitionReachedReason:
		// Unlike other conditions this one is renewed although its reason stays: lastUpdateTime is
		// the time of the last progress, from which the deadline counts.
		since := r.Now
		if last != nil && last.Status == corev1.ConditionTrue {
			since = last.LastTransitionTime
		}
		util.RemoveDeploymentCondition(status, appsv1.DeploymentProgressing)
		util.SetDeploymentCondition(status, appsv1.DeploymentCondition{
			Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, LastUpdateTime: r.Now, LastTransitionTime: since,
			Reason: util.ReplicaSetUpdatedReason, Message: subject + " is progressing.",
		})
	default:
		if left, counting := r.timeLeft(last); counting && left <= 0 {
			r.set(status, appsv1.DeploymentProgressing, corev1.ConditionFalse,
				util.TimedOutReason, subject+" has timed out progressing.")
		}
	}
}

// timeLeft is how long it takes until a lack of progress becomes a failure. It does not count
// before a rollout has set its condition, and after its end.
func (r *rollout) timeLeft(last *appsv1.DeploymentCondition) (left time.Duration, counting bool) {
	if last == nil || !util.HasProgressDeadline(r.Deployment) ||
		slices.Contains([]string{util.TimedOutReason, util.NewRSAvailableReason, PartitionReachedReason}, last.Reason) {
		return 0, false
	}
	deadline := last.LastUpdateTime.Add(time.Duration(*r.Deployment.Spec.ProgressDeadlineSeconds) * time.Second)
	return deadline.Sub(r.Now.Time), true
}

// nextReconcile is when the deadline passes.
func (r *rollout) nextReconcile(status appsv1.DeploymentStatus) time.Duration {
	left, counting := r.timeLeft(util.GetDeploymentCondition(status, appsv1.DeploymentProgressing))
	if !counting || util.DeploymentComplete(r.Deployment, &status) || r.kept.Rollback != nil {
		return 0
	}
	return max(time.Second, left)
}

// copyFailure shows on the Deployment that one of its ReplicaSets cannot create or delete Pods; the
// newest wins.
func (r *rollout) copyFailure(status *appsv1.DeploymentStatus) {
	for _, m := range slices.Backward(r.all()) {
		for _, c := range m.want.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure {
				util.SetDeploymentCondition(status, util.ReplicaSetToDeploymentCondition(c))
				return
			}
		}
	}
	util.RemoveDeploymentCondition(status, appsv1.DeploymentReplicaFailure)
}

// notePause keeps the time of a pause from counting against the deadline.
func (r *rollout) notePause() {
	last := util.GetDeploymentCondition(r.status, appsv1.DeploymentProgressing)
	if last != nil && last.Reason == util.TimedOutReason {
		return // a failure that was reported stays reported
	}
	paused := last != nil && last.Reason == util.PausedDeployReason
	if r.Deployment.Spec.Paused && !paused {
		r.noteProgressing(corev1.ConditionUnknown, util.PausedDeployReason, "Deployment is paused")
	} else if !r.Deployment.Spec.Paused && paused {
		r.noteProgressing(corev1.ConditionUnknown, util.ResumedDeployReason, "Deployment is resumed")
	}
}

func (r *rollout) noteProgressing(value corev1.ConditionStatus, reason, message string) {
	if util.HasProgressDeadline(r.Deployment) {
		r.set(&r.status, appsv1.DeploymentProgressing, value, reason, message)
	}
}

// FailedStatus is the status after a ReplicaSet could not be created: the last one, and why.
func FailedStatus(s State, message string) appsv1.DeploymentStatus {
	r := &rollout{State: s, status: *s.Deployment.Status.DeepCopy()}
	r.noteProgressing(corev1.ConditionFalse, util.FailedRSCreateReason, message)
	return r.status
}

// CollidedStatus is the status after the name of a ReplicaSet was found taken by one of another
// template.
func CollidedStatus(s State) appsv1.DeploymentStatus {
	status := *s.Deployment.Status.DeepCopy()
	status.CollisionCount = new(ptr.Deref(status.CollisionCount, 0) + 1)
	return status
}

func (r *rollout) set(
	status *appsv1.DeploymentStatus, of appsv1.DeploymentConditionType, value corev1.ConditionStatus, reason, message string,
) {
	util.SetDeploymentCondition(status, appsv1.DeploymentCondition{
		Type: of, Status: value, LastUpdateTime: r.Now, LastTransitionTime: r.Now, Reason: reason, Message: message,
	})
}

// withKstatus is a status from which a stranger sees whether the rollout is over. It is for our own
// kind: that of apps/v1 is known, and has upstream's conditions only.
func withKstatus(d *appsv1.Deployment, status appsv1.DeploymentStatus, now metav1.Time) appsv1.DeploymentStatus {
	is := appsv1.DeploymentCondition{
		Type: Reconciling, Reason: rollingOutReason, Message: "Not all Pods are of the current template and available.",
		Status: corev1.ConditionTrue, LastUpdateTime: now, LastTransitionTime: now,
	}
	progressing := util.GetDeploymentCondition(status, appsv1.DeploymentProgressing)
	switch {
	case progressing != nil && progressing.Status == corev1.ConditionFalse:
		is.Type, is.Reason, is.Message = Stalled, progressing.Reason, progressing.Message
	case progressing != nil && progressing.Reason == PartitionReachedReason, util.DeploymentComplete(d, &status):
		is.Type = ""
	}
	for _, of := range []appsv1.DeploymentConditionType{Reconciling, Stalled} {
		if of == is.Type {
			util.SetDeploymentCondition(&status, is)
		} else {
			util.RemoveDeploymentCondition(&status, of)
		}
	}
	return status
}
