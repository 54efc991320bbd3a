package deployment

import (
	"fmt"
	"sort"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/deployment/util"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/action"
)

// A rollback does not change the Deployment's spec: the spec belongs to the user. The status
// records that the current template failed. From then on, until the template changes, applyRollback
// sets r.current to the ReplicaSet of the last available revision, so that RollingUpdate and
// Recreate need no code for rollbacks.

// RollBack is the action of recording in the status that the current template failed.
type RollBack struct {
	Status v1alpha1.RollbackStatus
	action.Reason
}

func (r RollBack) String() string {
	return fmt.Sprintf("roll back from revision %d (ReplicaSet %s) to revision %d (ReplicaSet %s)",
		r.Status.From.Revision, r.Status.From.ReplicaSet, r.Status.To.Revision, r.Status.To.ReplicaSet)
}

// applyRollback puts the target of a rollback in place of the current ReplicaSet, if the
// Deployment's status says that the current template failed.
func (r *rollout) applyRollback() {
	rollback := r.optionsStatus.Rollback
	if rollback == nil {
		return
	}
	name, _ := newReplicaSetName(r.Deployment) // of the ReplicaSet that the template would get, or has
	if r.current != nil {
		name = r.current.Name
	}
	to := findReplicaSet(r.old, rollback.To.ReplicaSet)
	if name != rollback.From.ReplicaSet || to == nil {
		// The template changed, or the target is gone: an ordinary rollout begins, with a new
		// deadline from setFoundNewReplicaSet.
		r.optionsStatus.Rollback = nil
		util.RemoveDeploymentCondition(&r.status, v1alpha1.RolledBack)
		if r.current != nil {
			r.setFoundNewReplicaSet()
		}
		return
	}
	r.failed = r.current // nil, if a user deleted it
	r.old = lo.Without(r.all(), to)
	sort.Sort(controller.ReplicaSetsByCreationTimestamp(r.old))
	r.current = to
}

// partition returns how many Pods stay on old revisions: 0 without options.partition and during a
// rollback. A Pod that is on the current revision already does not go back.
func (r *rollout) partition() int32 {
	if r.Options.Partition == nil || r.optionsStatus.Rollback != nil {
		return 0
	}
	wanted, _ := intstr.GetScaledValueFromIntOrPercent(r.Options.Partition, int(r.replicas), true) // no error: it was validated
	// The size of r.current, which may be nil.
	updated := size(r.all()...) - size(r.old...)
	return max(0, min(int32(wanted), size(r.old...), r.replicas-updated))
}

// recordOutcome records the current ReplicaSet as available once its rollout is complete, or rolls
// back if it has failed.
func (r *rollout) recordOutcome() []action.Action {
	if r.optionsStatus.Rollback != nil || r.current == nil || r.observed[r.current.UID] == nil {
		// Rolled back already, or the current ReplicaSet does not exist yet: this plan
		// creates it, or a later one does, when the strategy Recreate has removed the old Pods.
		return nil
	}
	if util.DeploymentComplete(r.Deployment, &r.status) {
		if r.replicas > 0 { // a complete rollout without Pods says nothing about the template
			r.optionsStatus.AvailableReplicaSet = r.current.Name
		}
		return nil
	}
	reason, message := r.failure()
	to := findReplicaSet(r.old, r.optionsStatus.AvailableReplicaSet)
	if reason == "" || to == nil {
		return nil
	}
	rollback := v1alpha1.RollbackStatus{From: revisionOf(r.current), To: revisionOf(to), Reason: reason, Time: r.Now}
	rollback.Message = fmt.Sprintf("Rolled back from revision %d (replica set %q) to revision %d (replica set %q): %s",
		rollback.From.Revision, rollback.From.ReplicaSet, rollback.To.Revision, rollback.To.ReplicaSet, message)
	r.optionsStatus.Rollback = &rollback
	r.setCondition(v1alpha1.RolledBack, corev1.ConditionTrue, reason, rollback.Message)
	r.setProgressing(corev1.ConditionFalse, reason, rollback.Message)
	return []action.Action{RollBack{rollback, action.Reason(message)}}
}

// failure returns why the current rollout has failed; both results are empty if it has not.
func (r *rollout) failure() (reason, message string) {
	policy := r.Options.Rollback
	if policy.OnCrashLoop != nil {
		pods := intstr.ValueOrDefault(policy.OnCrashLoop.Pods, intstr.FromInt32(1))
		threshold, _ := intstr.GetScaledValueFromIntOrPercent(pods, int(r.replicas), true) // no error: it was validated
		if n := r.Crashing[r.current.UID]; n >= max(1, threshold) {
			return v1alpha1.CrashLoopReason, fmt.Sprintf("%d of its Pods restarted %d times or more and are not ready",
				n, policy.OnCrashLoop.Restarts)
		}
	}
	if policy.OnProgressDeadlineExceeded && r.progressing().Reason == util.TimedOutReason {
		seconds := *r.Deployment.Spec.ProgressDeadlineSeconds
		return util.TimedOutReason, fmt.Sprintf("it made no progress for %d seconds", seconds)
	}
	return "", ""
}

func revisionOf(set *appsv1.ReplicaSet) v1alpha1.RollbackRevision {
	number, _ := util.Revision(set)
	return v1alpha1.RollbackRevision{Revision: number, ReplicaSet: set.Name}
}

// findReplicaSet returns the ReplicaSet with that name; nil if there is none or if it is being
// deleted.
func findReplicaSet(sets []*appsv1.ReplicaSet, name string) *appsv1.ReplicaSet {
	found, _ := lo.Find(sets, func(s *appsv1.ReplicaSet) bool { return s.Name == name && s.DeletionTimestamp == nil })
	return found
}
