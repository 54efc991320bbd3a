package pod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"flyball.dev/kubelet/pod/plan"
)

func TestResizeEvents(t *testing.T) {
	pending := func(reason string) []v1.PodCondition {
		return []v1.PodCondition{{Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: reason, ObservedGeneration: 2}}
	}
	progress := []v1.PodCondition{{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: 2}}
	failed := []v1.PodCondition{{
		Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: 2, Reason: v1.PodReasonError, Message: "no",
	}}
	for name, tc := range map[string]struct {
		reason        string
		pending       *plan.Pending
		before, after []v1.PodCondition
		want          []resizeEvent
	}{
		"Deferred": {
			reason:  "a resize that is not granted is an Event, with the generation that was decided about",
			pending: &plan.Pending{Reason: "OutOfcpu", Message: "too much", Generation: 2},
			after:   pending(v1.PodReasonDeferred),
			want: []resizeEvent{{
				v1.EventTypeWarning, "ResizeDeferred",
				`Pod resize OutOfcpu: {"containers":[{"name":"main","resources":{"limits":{"memory":"100Mi"}}}],"generation":2,"error":"too much"}`,
			}},
		},
		"Infeasible": {
			reason:  "one that can never be granted has a reason of its own",
			pending: &plan.Pending{Reason: v1.PodReasonInfeasible, Message: "far too much", Generation: 2},
			after:   pending(v1.PodReasonInfeasible),
			want: []resizeEvent{{
				v1.EventTypeWarning, "ResizeInfeasible",
				`Pod resize Infeasible: {"containers":[{"name":"main","resources":{"limits":{"memory":"100Mi"}}}],"generation":2,"error":"far too much"}`,
			}},
		},
		"InProgress": {
			reason: "it has begun",
			after:  progress,
			want: []resizeEvent{{
				v1.EventTypeNormal, "ResizeStarted",
				`Pod resize started: {"containers":[{"name":"main","resources":{"limits":{"memory":"100Mi"}}}],"generation":2}`,
			}},
		},
		"Error": {
			reason: "why it does not go on is in the condition",
			before: progress,
			after:  failed,
			want: []resizeEvent{{
				v1.EventTypeWarning, "ResizeError",
				`Pod resize error: {"containers":[{"name":"main","resources":{"limits":{"memory":"100Mi"}}}],"generation":2,"error":"no"}`,
			}},
		},
		"Completed": {
			reason: "an agent that did not see the beginning reports the end, too",
			before: progress,
			want: []resizeEvent{{
				v1.EventTypeNormal, "ResizeCompleted",
				`Pod resize completed: {"containers":[{"name":"main","resources":{"limits":{"memory":"100Mi"}}}],"generation":2}`,
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod(func(p *v1.Pod) {
				p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceMemory: resource.MustParse("100Mi")}
			})
			before, after := &v1.PodStatus{Conditions: tc.before}, &v1.PodStatus{Conditions: tc.after}
			if d := cmp.Diff(tc.want, resizeEvents(pod, pod, tc.pending, before, after), cmp.AllowUnexported(resizeEvent{})); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			if again := resizeEvents(pod, pod, tc.pending, after, after); again != nil {
				t.Errorf("%s: there is a second Event: %v", tc.reason, again)
			}
		})
	}
}
