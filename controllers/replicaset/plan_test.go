package replicaset

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/utils/ptr"

	"flyball.dev/controllers/internal/action"
)

var (
	setKind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
	now     = metav1.Unix(1_000_000, 0)
)

func replicaSet(replicas int32) *appsv1.ReplicaSet {
	labels := map[string]string{"app": "web"}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "web-uid", Generation: 3},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}},
		},
	}
}

// pod is a ready Pod of the ReplicaSet on node n1, an hour old.
func pod(name string, mutate ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"},
			CreationTimestamp: metav1.NewTime(now.Add(-time.Hour)),
			OwnerReferences:   []metav1.OwnerReference{*metav1.NewControllerRef(replicaSet(0), setKind)},
		},
		Spec: corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))},
		}},
	}
	for _, m := range mutate {
		m(p)
	}
	return p
}

func orphan(p *corev1.Pod)    { p.OwnerReferences = nil }
func foreign(p *corev1.Pod)   { p.OwnerReferences[0].UID = "somebody" }
func unlabeled(p *corev1.Pod) { p.Labels = map[string]string{"app": "else"} }
func leaving(p *corev1.Pod)   { p.DeletionTimestamp = &now }
func failed(p *corev1.Pod)    { p.Status.Phase = corev1.PodFailed }
func unready(p *corev1.Pod)   { p.Status.Conditions[0].Status = corev1.ConditionFalse }
func pending(p *corev1.Pod)   { p.Status.Phase = corev1.PodPending; unready(p) }
func unbound(p *corev1.Pod)   { p.Spec.NodeName = ""; pending(p) }
func on(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = node }
}

func readyFor(d time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-d)) }
}

func cost(n int) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Annotations = map[string]string{corev1.PodDeletionCost: fmt.Sprint(n)}
	}
}

func restarts(n int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: n}} }
}

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
			out = append(out, fmt.Sprintf("create %d", a.Count))
		case Delete:
			for _, p := range a.Pods {
				out = append(out, "delete "+p.Name)
			}
		case action.Refuse:
			out = append(out, "refuse: "+a.Why())
		}
	}
	return out
}

func TestPlan(t *testing.T) {
	tests := map[string]struct {
		reason   string
		replicas int32
		mutate   func(*State)
		pods     []*corev1.Pod
		want     []string
	}{
		"Create":          {reason: "all Pods are missing", replicas: 3, want: []string{"create 3"}},
		"CreateBurst":     {reason: "one plan creates 500 at most", replicas: 1200, want: []string{"create 500"}},
		"Enough":          {reason: "there is nothing to do", replicas: 2, pods: []*corev1.Pod{pod("a"), pod("b")}},
		"ReplaceFinished": {reason: "a finished Pod does not count", replicas: 1, pods: []*corev1.Pod{pod("a", failed)}, want: []string{"create 1"}},
		"ReplaceLeaving":  {reason: "a Pod on its way out does not count", replicas: 1, pods: []*corev1.Pod{pod("a", leaving)}, want: []string{"create 1"}},
		"ReplaceDeleted": {
			reason: "a Pod that we deleted does not count, whatever the cache shows", replicas: 1, pods: []*corev1.Pod{pod("a")},
			mutate: func(s *State) { s.Deleting = sets.New[types.UID]("a") }, want: []string{"create 1"},
		},
		"Adopt":        {reason: "a matching orphan is taken instead of creating a Pod", replicas: 1, pods: []*corev1.Pod{pod("a", orphan)}, want: []string{"adopt a"}},
		"AdoptTooMany": {reason: "orphans are taken even if that makes too many", replicas: 0, pods: []*corev1.Pod{pod("a", orphan)}, want: []string{"adopt a", "delete a"}},
		"NoAdoption": {reason: "finished, leaving, foreign and unlabeled Pods are left alone", replicas: 0, pods: []*corev1.Pod{
			pod("a", orphan, failed), pod("b", orphan, leaving), pod("c", foreign), pod("d", orphan, unlabeled),
		}},
		"Release": {
			reason: "a Pod that the selector no longer matches is let go and replaced", replicas: 1, pods: []*corev1.Pod{pod("a", unlabeled)},
			want: []string{"release a", "create 1"},
		},
		"Deleted": {
			reason: "a ReplicaSet on its way out does nothing", replicas: 3, pods: []*corev1.Pod{pod("a", orphan), pod("b", unlabeled)},
			mutate: func(s *State) { s.ReplicaSet.DeletionTimestamp = &now },
		},
		"NoSelector": {
			reason: "an empty selector would match everything", replicas: 3, mutate: func(s *State) { s.ReplicaSet.Spec.Selector = &metav1.LabelSelector{} },
			want: []string{"refuse: the selector is empty or invalid: no Pod can be the ReplicaSet's"},
		},
		"Mismatch": {
			reason: "Pods that would be released at once must not be created", replicas: 3, mutate: func(s *State) { s.ReplicaSet.Spec.Template.Labels = nil },
			want: []string{"refuse: the selector does not match the labels of the Pod template: every new Pod would be lost at once"},
		},

		"DeleteUnbound": {reason: "unassigned before assigned", replicas: 1, pods: []*corev1.Pod{pod("a", pending), pod("b", unbound)}, want: []string{"delete b"}},
		"DeletePending": {reason: "Pending before Running", replicas: 1, pods: []*corev1.Pod{pod("a", unready), pod("b", pending)}, want: []string{"delete b"}},
		"DeleteNamed": {
			reason: "named ones before all others, but no more than are too many", replicas: 2, pods: []*corev1.Pod{pod("a", unbound), pod("b", cost(9)), pod("c"), pod("d")},
			mutate: func(s *State) { s.PodsToDelete = sets.New("b", "d", "stranger") }, want: []string{"delete d", "delete b"},
		},
		"DeleteNamedNot": {
			reason: "no Pod is deleted only because it is named", replicas: 2, pods: []*corev1.Pod{pod("a"), pod("b")},
			mutate: func(s *State) { s.PodsToDelete = sets.New("b") },
		},
		"DeleteUnready":  {reason: "not ready before ready", replicas: 1, pods: []*corev1.Pod{pod("a", cost(-5)), pod("b", unready)}, want: []string{"delete b"}},
		"DeleteCheap":    {reason: "lower deletion cost first", replicas: 1, pods: []*corev1.Pod{pod("a", cost(5)), pod("b", cost(-1))}, want: []string{"delete b"}},
		"DeleteCrowded":  {reason: "more neighbours on the node first", replicas: 1, pods: []*corev1.Pod{pod("a"), pod("b", on("n2"))}, mutate: func(s *State) { s.Neighbours = map[string]int{"n1": 1, "n2": 2} }, want: []string{"delete b"}},
		"DeleteFresh":    {reason: "ready for a shorter time first", replicas: 1, pods: []*corev1.Pod{pod("a"), pod("b", readyFor(time.Second))}, want: []string{"delete b"}},
		"DeleteRestarts": {reason: "more restarts first", replicas: 1, pods: []*corev1.Pod{pod("a"), pod("b", restarts(2))}, want: []string{"delete b"}},
		"DeleteYoung": {
			reason: "younger first", replicas: 1, pods: []*corev1.Pod{pod("a"), pod("b", func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(now.Add(-time.Second)) })},
			want: []string{"delete b"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			state := State{ReplicaSet: replicaSet(test.replicas), Pods: test.pods, Now: now}
			if test.mutate != nil {
				test.mutate(&state)
			}
			if diff := cmp.Diff(test.want, words(NewPlan(state).Actions)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
		})
	}
}

func TestStatus(t *testing.T) {
	failure := appsv1.ReplicaSetCondition{Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, LastTransitionTime: now, Reason: "FailedCreate", Message: "quota"}
	tests := map[string]struct {
		reason string
		mutate func(*State)
		pods   []*corev1.Pod
		gone   []*corev1.Pod // deleted after the plan was made
		err    error
		want   appsv1.ReplicaSetStatus
		next   time.Duration
	}{
		"Counts": {
			reason: "each count has its own rule",
			pods: []*corev1.Pod{
				pod("a"), pod("b", readyFor(4*time.Second)), pod("c", unready), pod("d", leaving), pod("e", failed), pod("f", failed, leaving),
				pod("g", func(p *corev1.Pod) { p.Labels["track"] = "x" }),
			},
			mutate: func(s *State) { s.ReplicaSet.Spec.MinReadySeconds = 10 },
			want:   appsv1.ReplicaSetStatus{Replicas: 4, FullyLabeledReplicas: 4, ReadyReplicas: 3, AvailableReplicas: 2, TerminatingReplicas: ptr.To[int32](1), ObservedGeneration: 3},
			next:   6 * time.Second,
		},
		"Deleted": {
			reason: "Pods that were deleted after the plan was made count no more, whatever they are",
			pods:   []*corev1.Pod{pod("a"), pod("b"), pod("c", unready), pod("d", leaving)}, gone: []*corev1.Pod{pod("a"), pod("c")},
			want: appsv1.ReplicaSetStatus{Replicas: 1, FullyLabeledReplicas: 1, ReadyReplicas: 1, AvailableReplicas: 1, TerminatingReplicas: ptr.To[int32](3), ObservedGeneration: 3},
		},
		"Fails": {
			reason: "a failure becomes a condition", err: errors.New("quota"),
			want: appsv1.ReplicaSetStatus{TerminatingReplicas: ptr.To[int32](0), ObservedGeneration: 3, Conditions: []appsv1.ReplicaSetCondition{failure}},
		},
		"StillFails": {
			reason: "a failure that lasts stays as it began", err: errors.New("another"),
			mutate: func(s *State) { s.ReplicaSet.Status.Conditions = []appsv1.ReplicaSetCondition{failure} },
			want:   appsv1.ReplicaSetStatus{TerminatingReplicas: ptr.To[int32](0), ObservedGeneration: 3, Conditions: []appsv1.ReplicaSetCondition{failure}},
		},
		"Recovers": {
			reason: "a failure that is over is taken away",
			mutate: func(s *State) { s.ReplicaSet.Status.Conditions = []appsv1.ReplicaSetCondition{failure} },
			want:   appsv1.ReplicaSetStatus{TerminatingReplicas: ptr.To[int32](0), ObservedGeneration: 3},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			state := State{ReplicaSet: replicaSet(4), Pods: test.pods, Now: now}
			if test.mutate != nil {
				test.mutate(&state)
			}
			plan := NewPlan(state)
			state.Deleting = sets.New(lo.Map(test.gone, func(p *corev1.Pod, _ int) types.UID { return p.UID })...)
			if diff := cmp.Diff(test.want, NewStatus(state, plan, test.err)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", test.reason, diff)
			}
			if next := NextReconcile(state, plan); next != test.next {
				t.Errorf("%s: next reconcile after %v, want %v", test.reason, next, test.next)
			}
		})
	}
}
