package deployment

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/controller/deployment/util"

	"flyball.dev/apis/apps/v1alpha1"
)

func at(revision string) func(*State) {
	return func(s *State) { s.Deployment.Annotations = map[string]string{util.RevisionAnnotation: revision} }
}

func keeping(partition string) func(*State) {
	return func(s *State) { s.Options.Partition = new(intstr.Parse(partition)) }
}

// was is a last condition Progressing, an hour old.
func was(status corev1.ConditionStatus, reason string) func(*State) {
	return func(s *State) {
		at := metav1.NewTime(start.Add(-time.Hour))
		s.Deployment.Status.Conditions = []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: status, Reason: reason, LastUpdateTime: at, LastTransitionTime: at}}
	}
}

func half(s *State) {
	s.Deployment.Status.Replicas, s.Deployment.Status.UpdatedReplicas = 13, 5
	s.Deployment.Status.ReadyReplicas, s.Deployment.Status.AvailableReplicas = 8, 8
}

func goodIs(set string) func(*State) {
	return func(s *State) { s.Options.Status.AvailableReplicaSet = set }
}

func onDeadline(s *State) {
	s.Options.Rollback = v1alpha1.Rollback{OnProgressDeadlineExceeded: true}
}

func onCrash(pods string) func(*State) {
	return func(s *State) {
		s.Options.Rollback = v1alpha1.Rollback{OnCrashLoop: &v1alpha1.CrashLoop{Restarts: 3, Pods: new(intstr.Parse(pods))}}
	}
}

func crashing(set string, n int) func(*State) {
	return func(s *State) { s.Crashing = map[types.UID]int{types.UID(set): n} }
}

func tookBack(from, to string) func(*State) {
	return func(s *State) {
		s.Options.Status.AvailableReplicaSet = to
		s.Options.Status.Rollback = &v1alpha1.RollbackStatus{
			From: v1alpha1.RollbackRevision{Revision: 2, ReplicaSet: from}, To: v1alpha1.RollbackRevision{Revision: 1, ReplicaSet: to}, Reason: v1alpha1.CrashLoopReason,
		}
	}
}

// TestBeyondApps is about what only our own Deployments ask for.
func TestBeyondApps(t *testing.T) {
	stuck := []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 5, available(0))}
	tests := map[string]struct {
		reason   string
		sets     []*appsv1.ReplicaSet
		mutate   []func(*State)
		want     []string
		progress string
		good     string // the ReplicaSet that is known to be good afterwards
		back     string // the one that the rollout is rolled back to
	}{
		"PartitionFirst":  {reason: "a first rollout finds nothing old to keep", mutate: []func(*State){keeping("4")}, want: []string{"create web- revision 1 size 10", "revision 1"}, progress: "True NewReplicaSetCreated"},
		"PartitionBegins": {reason: "the new one gets what it may", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10)}, mutate: []func(*State){keeping("9")}, want: []string{"create web- revision 2 size 1", "scale old 10 to 9", "revision 2"}, progress: "True ReplicaSetUpdated"},
		"PartitionAll":    {reason: "nothing moves", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10)}, mutate: []func(*State){keeping("100%")}, want: []string{"create web- revision 2 size 0", "revision 2"}, progress: "True PartitionReached"},
		"PartitionHolds": {
			reason: "rounded up, and no deadline counts", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 4), replicaSet("new", 2, 6)},
			mutate: []func(*State){at("2"), keeping("31%"), was("True", util.ReplicaSetUpdatedReason)}, progress: "True PartitionReached",
		},
		"PartitionShrinksTo": {reason: "old Pods go down to it and no further", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 7), replicaSet("new", 2, 6)}, mutate: []func(*State){at("2"), keeping("4")}, want: []string{"scale old 7 to 4"}, progress: "True ReplicaSetUpdated"},
		"PartitionUnhealthy": {
			reason: "old Pods that are not available are no less kept", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 4, available(0)), replicaSet("new", 2, 6)},
			mutate: []func(*State){at("2"), keeping("4"), was("True", v1alpha1.PartitionReachedReason)}, progress: "True ReplicaSetUpdated",
		},
		"PartitionLowered": {
			reason: "the rest follows, with a new deadline", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 4), replicaSet("new", 2, 6)},
			mutate: []func(*State){at("2"), keeping("1"), was("True", v1alpha1.PartitionReachedReason)}, want: []string{"scale new 6 to 9"}, progress: "True ReplicaSetUpdated",
		},
		"PartitionRaised": {
			reason: "no Pod returns to an old revision", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 4), replicaSet("new", 2, 6)},
			mutate: []func(*State){at("2"), keeping("8")}, progress: "True PartitionReached",
		},
		"PartitionOldest": {reason: "the newest of the old ones is kept", sets: []*appsv1.ReplicaSet{replicaSet("older", 1, 4), replicaSet("old", 2, 4), replicaSet("new", 3, 5)}, mutate: []func(*State){at("3"), keeping("4")}, want: []string{"scale older 4 to 0"}, progress: "True ReplicaSetUpdated"},

		"Good": {
			reason: "a complete rollout is the target of later rollbacks", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 0), replicaSet("new", 2, 10)},
			mutate: []func(*State){at("2"), goodIs("old")}, progress: "True NewReplicaSetAvailable", good: "new",
		},
		"GoodIsKept": {
			reason: "however short the history is", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 0), replicaSet("new", 2, 10)},
			mutate: []func(*State){at("2"), goodIs("old"), paused, func(s *State) { s.Deployment.Spec.RevisionHistoryLimit = new(int32(0)) }}, progress: "Unknown DeploymentPaused", good: "old",
		},
		"Deadline":      {reason: "out of time", sets: stuck, mutate: []func(*State){at("2"), half, was("True", util.ReplicaSetUpdatedReason), onDeadline, goodIs("old")}, want: []string{"roll back from new to old: it made no progress for 600 seconds"}, progress: "False ProgressDeadlineExceeded", good: "old", back: "old"},
		"DeadlineUnset": {reason: "the Deployment does not ask for it", sets: stuck, mutate: []func(*State){at("2"), half, was("True", util.ReplicaSetUpdatedReason), goodIs("old")}, progress: "False ProgressDeadlineExceeded", good: "old"},
		"NothingGood":   {reason: "there is nothing to go back to", sets: stuck, mutate: []func(*State){at("2"), half, was("True", util.ReplicaSetUpdatedReason), onDeadline}, progress: "False ProgressDeadlineExceeded"},
		"Crash":         {reason: "enough Pods crash", sets: stuck, mutate: []func(*State){at("2"), half, was("True", util.FoundNewRSReason), onCrash("20%"), crashing("new", 2), goodIs("old")}, want: []string{"roll back from new to old: 2 of its Pods restarted 3 times or more and are not ready"}, progress: "False CrashLoop", good: "old", back: "old"},
		"CrashFew":      {reason: "too few do", sets: stuck, mutate: []func(*State){at("2"), half, was("True", v1alpha1.PartitionReachedReason), onCrash("3"), crashing("new", 2), goodIs("old")}, progress: "True ReplicaSetUpdated", good: "old"},
		"CrashOld":      {reason: "those of an old revision do not count", sets: stuck, mutate: []func(*State){at("2"), half, was("True", v1alpha1.PartitionReachedReason), onCrash("1"), crashing("old", 8), goodIs("old")}, progress: "True ReplicaSetUpdated", good: "old"},
		"CrashLater":    {reason: "a rollout that was complete has not failed", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 0), replicaSet("new", 2, 10, available(2))}, mutate: []func(*State){at("2"), onCrash("1"), crashing("new", 8), goodIs("new"), was("True", util.NewRSAvailableReason)}, progress: "True NewReplicaSetAvailable", good: "new"},

		"BackDown":  {reason: "Pods that are not available go first", sets: stuck, mutate: []func(*State){at("2"), half, was("False", v1alpha1.CrashLoopReason), tookBack("new", "old")}, want: []string{"scale new 5 to 0"}, progress: "False CrashLoop", good: "old", back: "old"},
		"BackDone":  {reason: "the failed revision is not tried again", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10), replicaSet("new", 2, 0)}, mutate: []func(*State){at("2"), was("False", v1alpha1.CrashLoopReason), tookBack("new", "old")}, progress: "False CrashLoop", good: "old", back: "old"},
		"BackGone":  {reason: "not even when its ReplicaSet is gone", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10)}, mutate: []func(*State){at("2"), was("False", v1alpha1.CrashLoopReason), tookBack("NAME", "old")}, progress: "False CrashLoop", good: "old", back: "old"},
		"BackParts": {reason: "a partition keeps nothing of a failed revision", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10), replicaSet("new", 2, 3, available(0))}, mutate: []func(*State){at("2"), keeping("5"), was("False", v1alpha1.CrashLoopReason), tookBack("new", "old")}, want: []string{"scale new 3 to 0"}, progress: "False CrashLoop", good: "old", back: "old"},
		"BackUndo":  {reason: "the template became the good one again", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 10), replicaSet("bad", 2, 0)}, mutate: []func(*State){at("2"), was("False", v1alpha1.CrashLoopReason), tookBack("bad", "new")}, want: []string{"update new revision=3 revision-history=1", "revision 3"}, progress: "True NewReplicaSetAvailable", good: "new"},
		"BackNext":  {reason: "another template is tried, with a deadline of its own", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10), replicaSet("bad", 2, 0)}, mutate: []func(*State){at("2"), onDeadline, was("False", util.TimedOutReason), tookBack("bad", "old")}, want: []string{"create web- revision 3 size 3", "scale old 10 to 8", "revision 3"}, progress: "True ReplicaSetUpdated", good: "old"},
		"BackAgain": {reason: "an older template that is tried again too", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 0), replicaSet("old", 2, 10), replicaSet("bad", 3, 0)}, mutate: []func(*State){at("3"), onDeadline, was("False", util.TimedOutReason), tookBack("bad", "old")}, want: []string{"scale new 0 to 3 revision=4 revision-history=1", "revision 4"}, progress: "True ReplicaSetUpdated", good: "old"},
		"BackLost":  {reason: "there is nothing left to go back to", sets: stuck[1:], mutate: []func(*State){at("2"), half, was("False", v1alpha1.CrashLoopReason), tookBack("new", "old")}, want: []string{"scale new 5 to 10"}, progress: "True ReplicaSetUpdated", good: "old"},
		"BackScale": {reason: "what is scaled is the good one", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 5, sizedFor("5", "8")), replicaSet("new", 2, 0)}, mutate: []func(*State){at("2"), was("False", v1alpha1.CrashLoopReason), tookBack("new", "old")}, want: []string{"scale old 5 to 10 desired-replicas=10"}, progress: "False CrashLoop", good: "old", back: "old"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			state := State{Deployment: deployment(10), ReplicaSets: test.sets, Now: metav1.NewTime(start)}
			for _, m := range test.mutate {
				m(&state)
			}
			if back := state.Options.Status.Rollback; back != nil && back.From.ReplicaSet == "NAME" {
				back.From.ReplicaSet, _ = newReplicaSetName(state.Deployment)
			}
			plan := NewPlan(state)
			if diff := cmp.Diff(test.want, words(plan.Actions)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
			progress := ""
			if c := util.GetDeploymentCondition(plan.Status, appsv1.DeploymentProgressing); c != nil {
				progress = string(c.Status) + " " + c.Reason
			}
			back := ""
			if plan.OptionsStatus.Rollback != nil {
				back = plan.OptionsStatus.Rollback.To.ReplicaSet
			}
			if diff := cmp.Diff([]string{test.progress, test.good, back}, []string{progress, plan.OptionsStatus.AvailableReplicaSet, back}); diff != "" || back != test.back {
				t.Errorf("%s: progress, good revision (-want +got):\n%s; back to %q, want %q", test.reason, diff, back, test.back)
			}
			if (util.GetDeploymentCondition(plan.Status, v1alpha1.RolledBack) != nil) != (back != "" && state.Options.Status.Rollback == nil) {
				t.Errorf("%s: condition RolledBack: %v", test.reason, util.GetDeploymentCondition(plan.Status, v1alpha1.RolledBack))
			}
			if plan.OptionsStatus.Selector != "app=web" {
				t.Errorf("selector %q", plan.OptionsStatus.Selector)
			}
		})
	}
}
