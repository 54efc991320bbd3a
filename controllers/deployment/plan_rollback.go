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

// A rollback leaves the Deployment's spec, which is its user's, alone. The status notes that the
// current template failed. From then on, until the template changes, the ReplicaSet of the last
// available revision takes the place of the current one; the strategies need not know.

// RollBack notes that the current template failed. The next plan acts on the note.
type RollBack struct {
	v1alpha1.RollbackStatus
	action.Reason
}

func (r RollBack) String() string {
	return fmt.Sprintf("roll back from revision %d (ReplicaSet %s) to revision %d (ReplicaSet %s)",
		r.From.Revision, r.From.ReplicaSet, r.To.Revision, r.To.ReplicaSet)
}

// applyRollback puts the target of a rollback in place of the current ReplicaSet, if the last
// status says that the current template failed.
func (r *rollout) applyRollback() {
	note := r.kept.Rollback
	if note == nil {
		return
	}
	name, _ := newName(r.Deployment)
	if r.current != nil {
		name = r.current.Name
	}
	to := find(r.old, note.To.ReplicaSet)
	if name != note.From.ReplicaSet || to == nil {
		// The template changed, or the target is gone: a rollout begins, with a new deadline.
		r.kept.Rollback = nil
		util.RemoveDeploymentCondition(&r.status, v1alpha1.RolledBack)
		if r.current != nil {
			r.noteFound()
		}
		return
	}
	r.failed = r.current // nil, if a user deleted it
	r.old = lo.Without(r.all(), to)
	sort.Sort(controller.ReplicaSetsByCreationTimestamp(r.old))
	r.current = to
}

// partition is how many Pods stay on old revisions. No Pod that has moved returns to one.
func (r *rollout) partition() int32 {
	if r.Options.Partition == nil || r.kept.Rollback != nil {
		return 0
	}
	wanted, _ := intstr.GetScaledValueFromIntOrPercent(r.Options.Partition, int(r.replicas), true) // validated
	moved := size(r.all()...) - size(r.old...)
	return max(0, min(int32(wanted), size(r.old...), r.replicas-moved))
}

// conclude notes which revision was available last, or that the current one has failed.
func (r *rollout) conclude() []action.Action {
	if r.kept.Rollback != nil || r.current == nil || r.observed[r.current.UID] == nil {
		return nil
	}
	if util.DeploymentComplete(r.Deployment, &r.status) {
		if r.replicas > 0 {
			r.kept.AvailableReplicaSet = r.current.Name
		}
		return nil
	}
	reason, what := r.failure()
	to := find(r.old, r.kept.AvailableReplicaSet)
	if reason == "" || to == nil {
		return nil
	}
	note := v1alpha1.RollbackStatus{From: revisionOf(r.current), To: revisionOf(to), Reason: reason, Time: r.Now}
	note.Message = fmt.Sprintf("Rolled back from revision %d (replica set %q) to revision %d (replica set %q): %s",
		note.From.Revision, note.From.ReplicaSet, note.To.Revision, note.To.ReplicaSet, what)
	r.kept.Rollback = &note
	r.setCondition(v1alpha1.RolledBack, corev1.ConditionTrue, reason, note.Message)
	r.noteProgressing(corev1.ConditionFalse, reason, note.Message)
	return []action.Action{RollBack{note, action.Reason(what)}}
}

// failure is why the current rollout has failed; both results are empty if it has not.
func (r *rollout) failure() (reason, words string) {
	on := r.Options.Rollback
	if on.OnCrashLoop != nil {
		pods := intstr.ValueOrDefault(on.OnCrashLoop.Pods, intstr.FromInt32(1))
		most, _ := intstr.GetScaledValueFromIntOrPercent(pods, int(r.replicas), true) // validated
		if n := r.Crashing[r.current.UID]; n >= max(1, most) {
			return v1alpha1.CrashLoopReason, fmt.Sprintf("%d of its Pods restarted %d times or more and are not ready",
				n, on.OnCrashLoop.Restarts)
		}
	}
	if on.OnProgressDeadlineExceeded && r.progressing().Reason == util.TimedOutReason {
		seconds := *r.Deployment.Spec.ProgressDeadlineSeconds
		return util.TimedOutReason, fmt.Sprintf("it made no progress for %d seconds", seconds)
	}
	return "", ""
}

func revisionOf(set *appsv1.ReplicaSet) v1alpha1.RollbackRevision {
	number, _ := util.Revision(set)
	return v1alpha1.RollbackRevision{Revision: number, ReplicaSet: set.Name}
}

// find returns nil if there is none of that name, or it is being deleted.
func find(sets []*appsv1.ReplicaSet, name string) *appsv1.ReplicaSet {
	found, _ := lo.Find(sets, func(s *appsv1.ReplicaSet) bool { return s.Name == name && s.DeletionTimestamp == nil })
	return found
}
