package deployment

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"k8s.io/utils/ptr"

	"flyball.dev/controllers/internal/action"
)

func deployment(replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": "web"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "web-uid", Generation: 2},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels}, ProgressDeadlineSeconds: ptr.To[int32](600),
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "new"}}}},
			Strategy: appsv1.DeploymentStrategy{Type: appsv1.RollingUpdateDeploymentStrategyType, RollingUpdate: &appsv1.RollingUpdateDeployment{
				MaxSurge: new(intstr.FromInt32(3)), MaxUnavailable: new(intstr.FromInt32(2)),
			}},
		},
	}
}

// replicaSet is one of deployment's ReplicaSets with all Pods available; its name is its image, its
// age in hours and its revision tell it apart.
func replicaSet(image string, revision, replicas int32, mutate ...func(*appsv1.ReplicaSet)) *appsv1.ReplicaSet {
	d := deployment(0)
	labels := map[string]string{"app": "web", appsv1.DefaultDeploymentUniqueLabelKey: image}
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: image, UID: types.UID(image), Labels: labels, Generation: 1,
			CreationTimestamp: metav1.NewTime(start.Add(time.Duration(revision-100) * time.Hour)),
			OwnerReferences:   []metav1.OwnerReference{*metav1.NewControllerRef(d, deploymentKind)},
			Annotations:       map[string]string{util.RevisionAnnotation: fmt.Sprint(revision), util.DesiredReplicasAnnotation: "10", util.MaxReplicasAnnotation: "13"},
		},
		Spec: appsv1.ReplicaSetSpec{Replicas: &replicas, Template: *d.Spec.Template.DeepCopy()},
		Status: appsv1.ReplicaSetStatus{
			Replicas: replicas, ReadyReplicas: replicas, AvailableReplicas: replicas,
			TerminatingReplicas: ptr.To[int32](0), ObservedGeneration: 1,
		},
	}
	set.Spec.Template.Labels = labels
	set.Spec.Template.Spec.Containers[0].Image = image
	for _, m := range mutate {
		m(set)
	}
	return set
}

func available(n int32) func(*appsv1.ReplicaSet) {
	return func(set *appsv1.ReplicaSet) { set.Status.AvailableReplicas, set.Status.ReadyReplicas = n, n }
}

func sizedFor(desired, most string) func(*appsv1.ReplicaSet) {
	return func(set *appsv1.ReplicaSet) {
		set.Annotations[util.DesiredReplicasAnnotation], set.Annotations[util.MaxReplicasAnnotation] = desired, most
	}
}

func recreate(s *State) {
	s.Deployment.Spec.Strategy = appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}
}

func paused(s *State) { s.Deployment.Spec.Paused = true }

// words shows actions as a reader would note them down.
func words(actions []action.Action) []string {
	var out []string
	for _, step := range actions {
		switch a := step.(type) {
		case action.Adopt:
			out = append(out, "adopt "+a.Object.GetName())
		case action.Release:
			out = append(out, "release "+a.Object.GetName())
		case Create:
			out = append(out, fmt.Sprintf("create %s revision %s size %d", strings.TrimSuffix(a.ReplicaSet.Name, a.ReplicaSet.Labels[appsv1.DefaultDeploymentUniqueLabelKey]),
				a.ReplicaSet.Annotations[util.RevisionAnnotation], *a.ReplicaSet.Spec.Replicas))
		case Update:
			out = append(out, update(a))
		case Delete:
			out = append(out, "delete "+a.ReplicaSet.Name)
		case SetRevision:
			out = append(out, "revision "+a.Revision)
		case RollBack:
			out = append(out, fmt.Sprintf("roll back from %s to %s: %s", a.Status.From.ReplicaSet, a.Status.To.ReplicaSet, a.Why()))
		case action.Refuse:
			out = append(out, "refuse")
		}
	}
	return out
}

func update(a Update) string {
	text := "update " + a.Before.Name
	if from, to := *a.Before.Spec.Replicas, *a.After.Spec.Replicas; from != to {
		text = fmt.Sprintf("scale %s %d to %d", a.Before.Name, from, to)
	}
	for _, key := range []string{util.RevisionAnnotation, util.RevisionHistoryAnnotation, util.DesiredReplicasAnnotation, "note"} {
		if was, is := a.Before.Annotations[key], a.After.Annotations[key]; was != is {
			text += fmt.Sprintf(" %s=%s", key[strings.LastIndex(key, "/")+1:], is)
		}
	}
	if a.Before.Spec.MinReadySeconds != a.After.Spec.MinReadySeconds {
		text += " minReadySeconds"
	}
	return text
}

func TestPlan(t *testing.T) {
	revision := func(number string) func(*State) {
		return func(s *State) { s.Deployment.Annotations = map[string]string{util.RevisionAnnotation: number} }
	}
	tests := map[string]struct {
		reason string
		sets   []*appsv1.ReplicaSet
		mutate []func(*State)
		want   []string
	}{
		"First":         {reason: "a new Deployment gets its ReplicaSet at full size", want: []string{"create web- revision 1 size 10", "revision 1"}},
		"FirstRecreate": {reason: "with Recreate too, since no old Pod runs", mutate: []func(*State){recreate}, want: []string{"create web- revision 1 size 10", "revision 1"}},
		"NewTemplate": {
			reason: "the new one begins with the surge, and unavailable ones may go at once", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10)},
			want: []string{"create web- revision 2 size 3", "scale old 10 to 8", "revision 2"},
		},
		"Full":      {reason: "no surge is left and nothing is available: wait", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 5, available(0))}, mutate: []func(*State){revision("2")}},
		"GrowFirst": {reason: "the surge is used before anything shrinks", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 3)}, mutate: []func(*State){revision("2")}, want: []string{"scale new 3 to 5"}},
		"GrowsNotYet": {
			reason: "Pods that a ReplicaSet reports as available may be those that it deletes, until it has observed its new size", mutate: []func(*State){revision("2")},
			sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 2, available(5), func(set *appsv1.ReplicaSet) { set.Generation, set.Status.Replicas = 9, 5 })},
		},
		"GrowsAgain": {
			reason: "it has observed its new size, and could not delete any", mutate: []func(*State){revision("2")}, want: []string{"scale new 2 to 5"},
			sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 2, available(5), func(set *appsv1.ReplicaSet) { set.Status.Replicas = 5 })},
		},
		"ShrinkNext": {reason: "available new Pods replace old ones", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 5, available(4))}, mutate: []func(*State){revision("2")}, want: []string{"scale old 8 to 4"}},
		"Unhealthy":  {reason: "old Pods that are not available go first, wherever they are", sets: []*appsv1.ReplicaSet{replicaSet("older", 1, 4), replicaSet("old", 2, 4, available(1)), replicaSet("new", 3, 5)}, mutate: []func(*State){revision("3")}, want: []string{"scale old 4 to 1", "scale older 4 to 2"}},
		"LaggingOld": {reason: "Pods that a ReplicaSet is to delete are not counted as available", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 5, available(8)), replicaSet("new", 2, 8, available(3))}, mutate: []func(*State){revision("2")}},
		"RollBack":   {reason: "a ReplicaSet that has the template already is taken, with a new revision", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 0), replicaSet("old", 2, 10)}, mutate: []func(*State){revision("2")}, want: []string{"scale new 0 to 3 revision=3 revision-history=1", "revision 3"}},
		"Annotations": {reason: "the Deployment's annotations are copied, but for those of the loop and of kubectl apply", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 10)}, mutate: []func(*State){func(s *State) {
			s.Deployment.Annotations = map[string]string{util.RevisionAnnotation: "1", "note": "x", corev1.LastAppliedConfigAnnotation: "{}"}
		}}, want: []string{"update new note=x"}},
		"MinReady": {reason: "minReadySeconds does not belong to the template", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 10)}, mutate: []func(*State){revision("1"), func(s *State) { s.Deployment.Spec.MinReadySeconds = 5 }}, want: []string{"update new minReadySeconds"}},

		"ScaleUp":           {reason: "the only ReplicaSet follows", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 5, sizedFor("5", "8"))}, mutate: []func(*State){revision("1")}, want: []string{"scale new 5 to 10 desired-replicas=10"}},
		"ScaleInProportion": {reason: "in the midst of a rollout each keeps its share", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 4, sizedFor("5", "8")), replicaSet("new", 2, 4, sizedFor("5", "8"), available(0))}, mutate: []func(*State){revision("2")}, want: []string{"scale new 4 to 7 desired-replicas=10", "scale old 4 to 6 desired-replicas=10"}},
		"ScaleToZero": {
			reason: "nothing is left of any", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 5, available(0))}, mutate: []func(*State){revision("2"), func(s *State) { s.Deployment.Spec.Replicas = ptr.To[int32](0) }},
			want: []string{"scale old 8 to 0 desired-replicas=0", "scale new 5 to 0 desired-replicas=0"},
		},
		"Saturated": {reason: "old Pods go when the new ReplicaSet has all", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 3, sizedFor("5", "8")), replicaSet("new", 2, 10)}, mutate: []func(*State){revision("2")}, want: []string{"scale old 3 to 0 desired-replicas=10"}},

		"PausedNew":   {reason: "a paused Deployment starts no rollout", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10)}, mutate: []func(*State){revision("1"), paused}},
		"PausedScale": {reason: "but it is scaled", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 5, sizedFor("5", "8"))}, mutate: []func(*State){revision("1"), paused}, want: []string{"scale old 5 to 10 desired-replicas=10"}},
		"Deleted":     {reason: "a Deployment on its way out does nothing", mutate: []func(*State){func(s *State) { s.Deployment.DeletionTimestamp = &s.Now }}},

		"RecreateStops":  {reason: "old Pods go first", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 10)}, mutate: []func(*State){recreate}, want: []string{"scale old 10 to 0"}},
		"RecreateWaits":  {reason: "a Pod that still runs holds everything up", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 0)}, mutate: []func(*State){recreate, func(s *State) { s.Running = map[types.UID]int{"old": 1} }}},
		"RecreateStarts": {reason: "no old Pod is left", sets: []*appsv1.ReplicaSet{replicaSet("old", 1, 0)}, mutate: []func(*State){recreate}, want: []string{"create web- revision 2 size 10", "revision 2"}},

		"CleanUp": {
			reason: "the oldest beyond the limit go, unless they have Pods or may get some", mutate: []func(*State){revision("5"), func(s *State) {
				s.Deployment.Spec.RevisionHistoryLimit = ptr.To[int32](1)
				s.Deployment.Status = appsv1.DeploymentStatus{Replicas: 10, UpdatedReplicas: 10, AvailableReplicas: 10, ObservedGeneration: 2}
			}}, sets: []*appsv1.ReplicaSet{
				replicaSet("a", 1, 0), replicaSet("b", 2, 0, func(set *appsv1.ReplicaSet) { set.Status.Replicas = 1 }),
				replicaSet("c", 3, 0, func(set *appsv1.ReplicaSet) { set.Generation = 9 }), replicaSet("d", 4, 0), replicaSet("new", 5, 10),
			},
			want: []string{"delete a"},
		},
		"Adopt": {reason: "a matching orphan is one of ours", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 10, func(set *appsv1.ReplicaSet) { set.OwnerReferences = nil })}, mutate: []func(*State){revision("1")}, want: []string{"adopt new"}},
		"Release": {
			reason: "one that the selector no longer matches is not", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 10, func(set *appsv1.ReplicaSet) { set.Labels = nil })}, mutate: []func(*State){revision("1")},
			want: []string{"release new", "create web- revision 1 size 10"},
		},
		"Foreign": {
			reason: "what names another controller is none of our business", sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 10, func(set *appsv1.ReplicaSet) { set.OwnerReferences[0].UID = "x" })},
			want: []string{"create web- revision 1 size 10", "revision 1"},
		},
		"NoSelector": {reason: "an empty selector would match everything", mutate: []func(*State){func(s *State) { s.Deployment.Spec.Selector = &metav1.LabelSelector{} }}, want: []string{"refuse"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			state := State{Deployment: deployment(10), ReplicaSets: test.sets, Now: metav1.NewTime(start)}
			for _, m := range test.mutate {
				m(&state)
			}
			if diff := cmp.Diff(test.want, words(NewPlan(state).Actions)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

func TestProgressing(t *testing.T) {
	progressing := func(status corev1.ConditionStatus, reason string, ago time.Duration) *appsv1.DeploymentCondition {
		at := metav1.NewTime(start.Add(-ago))
		return &appsv1.DeploymentCondition{Type: appsv1.DeploymentProgressing, Status: status, Reason: reason, LastUpdateTime: at, LastTransitionTime: at}
	}
	full := appsv1.DeploymentStatus{Replicas: 10, UpdatedReplicas: 10, ReadyReplicas: 10, AvailableReplicas: 10}
	half := appsv1.DeploymentStatus{Replicas: 13, UpdatedReplicas: 5, ReadyReplicas: 8, AvailableReplicas: 8}
	stuck := []*appsv1.ReplicaSet{replicaSet("old", 1, 8), replicaSet("new", 2, 5, available(0))}
	done := []*appsv1.ReplicaSet{replicaSet("old", 1, 0), replicaSet("new", 2, 10)}
	tests := map[string]struct {
		reason string
		last   *appsv1.DeploymentCondition
		status appsv1.DeploymentStatus
		sets   []*appsv1.ReplicaSet
		mutate func(*State)
		want   string
		next   time.Duration
	}{
		"Begins":       {reason: "a ReplicaSet is created", want: `True NewReplicaSetCreated Created new replica set "NAME"`, next: 600 * time.Second},
		"Found":        {reason: "a ReplicaSet was there before anybody cared about progress", sets: stuck, status: half, want: `True FoundNewReplicaSet Found new replica set "new"`, next: 600 * time.Second},
		"Moves":        {reason: "more new Pods than before", last: progressing("True", "NewReplicaSetCreated", time.Minute), sets: stuck, want: `True ReplicaSetUpdated ReplicaSet "new" is progressing.`, next: 600 * time.Second},
		"Stands":       {reason: "nothing moved, and there is time left", last: progressing("True", "ReplicaSetUpdated", time.Minute), sets: stuck, status: half, want: "True ReplicaSetUpdated ", next: 540 * time.Second},
		"TimesOut":     {reason: "nothing moved for too long", last: progressing("True", "ReplicaSetUpdated", 10*time.Minute), sets: stuck, status: half, want: `False ProgressDeadlineExceeded ReplicaSet "new" has timed out progressing.`},
		"StaysOut":     {reason: "a failure stays reported while nothing moves", last: progressing("False", "ProgressDeadlineExceeded", time.Hour), sets: stuck, status: half, want: "False ProgressDeadlineExceeded "},
		"Completes":    {reason: "all Pods are new and available", last: progressing("True", "ReplicaSetUpdated", time.Minute), sets: done, status: half, want: `True NewReplicaSetAvailable ReplicaSet "new" has successfully progressed.`},
		"FailsLater":   {reason: "a complete rollout is not judged again", last: progressing("True", "NewReplicaSetAvailable", time.Hour), sets: []*appsv1.ReplicaSet{replicaSet("new", 1, 10, available(3))}, status: full, want: "True NewReplicaSetAvailable "},
		"Pauses":       {reason: "a pause stops the clock", last: progressing("True", "ReplicaSetUpdated", time.Hour), sets: stuck, status: half, mutate: paused, want: "Unknown DeploymentPaused Deployment is paused"},
		"Resumes":      {reason: "the clock starts anew", last: progressing("Unknown", "DeploymentPaused", time.Hour), sets: stuck, status: half, want: "Unknown DeploymentResumed Deployment is resumed", next: 600 * time.Second},
		"WithoutClock": {reason: "no deadline, no condition", last: progressing("True", "ReplicaSetUpdated", time.Hour), sets: stuck, status: half, mutate: func(s *State) { s.Deployment.Spec.ProgressDeadlineSeconds = nil }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			state := State{Deployment: deployment(10), ReplicaSets: test.sets, Now: metav1.NewTime(start)}
			state.Deployment.Status = test.status
			if test.last != nil {
				state.Deployment.Status.Conditions = []appsv1.DeploymentCondition{*test.last}
			}
			if test.mutate != nil {
				test.mutate(&state)
			}
			plan := NewPlan(state)
			got := ""
			if c := util.GetDeploymentCondition(plan.Status, appsv1.DeploymentProgressing); c != nil {
				got = fmt.Sprintf("%s %s %s", c.Status, c.Reason, c.Message)
			}
			for _, action := range plan.Actions {
				if create, ok := action.(Create); ok {
					got = strings.ReplaceAll(got, create.ReplicaSet.Name, "NAME")
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
			if plan.Next != test.next {
				t.Errorf("%s: next reconcile after %v, want %v", test.reason, plan.Next, test.next)
			}
		})
	}
}
