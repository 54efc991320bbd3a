package plan

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"flyball.dev/kubelet/cri"
)

const mi = 1 << 20

// resized is a Pod that was granted 200 MiB after it had 100, and of which nothing is done yet.
func resized(s *State) {
	s.Pod.Generation = 2
	setMemory(&s.Pod.Spec.Containers[0], 200*mi)
	s.Allocation = AllocationOf(s.Pod, 2)
	s.Wanted = map[string]cri.Resources{"main": {CPUShares: 2, Memory: 200 * mi}}
	c := &s.Runtime.Containers[0]
	c.Resources = &cri.Resources{CPUShares: 2, Memory: 100 * mi}
	c.Annotations["flyball.dev/resources"] = `{"container":{"limits":{"memory":"100Mi"}}}`
}

func restartPolicy(s *State) {
	s.Pod.Spec.Containers[0].ResizePolicy = []v1.ContainerResizePolicy{
		{ResourceName: v1.ResourceMemory, RestartPolicy: v1.RestartContainer},
	}
}

func TestPlanResize(t *testing.T) {
	given := cri.Resources{CPUShares: 2, Memory: 200 * mi}
	grow := GrowCgroup{2, "the Pod was resized"}
	check := CheckMemory{Generation: 2, Reason: "memory limits must not fall below what is used"}
	change := ResizeContainer{ID: "main-0", Name: "main", Resources: given, Reason: "its resources changed"}
	shrink := ShrinkCgroup{2, "the containers were resized"}
	runPlanCases(t, map[string]planCase{
		"NeverResized": {
			reason: "a Pod that was never resized is as it was made, whatever a runtime reports",
			change: func(s *State) {
				resized(s)
				s.Allocation.Generation = 0
			},
		},
		"GrowFirst": {
			reason: "the limit of the Pod rises before a container uses it",
			change: resized,
			want:   []Action{grow},
		},
		"Check": {
			reason: "before anything shrinks it is seen whether it can",
			change: func(s *State) { resized(s); s.Grown = 2 },
			want:   []Action{check},
		},
		"CheckShrinking": {
			reason: "a container that gets less must not use more",
			change: func(s *State) {
				resized(s)
				s.Runtime.Containers[0].Resources.Memory = 300 * mi
				s.Grown = 2
			},
			want: []Action{CheckMemory{
				Generation: 2, Containers: []ContainerMemory{{"main", "main-0", 200 * mi}}, Reason: check.Reason,
			}},
		},
		"CheckFailed": {
			reason: "what cannot be done now is tried again",
			change: func(s *State) {
				resized(s)
				s.Grown = 2
				s.Failures[SlotResize] = Failure{RetryAt: epoch.Add(time.Second)}
			},
			next: epoch.Add(time.Second),
		},
		"Change": {
			reason: "then the container is changed",
			change: func(s *State) { resized(s); s.Grown, s.Checked = 2, 2 },
			want:   []Action{change},
		},
		"ShrinkLast": {
			reason: "the Pod's cgroup shrinks when the containers have",
			change: func(s *State) {
				resized(s)
				s.Grown, s.Checked = 2, 2
				s.Given["main-0"] = given
			},
			want: []Action{shrink},
		},
		"Done": {
			reason: "then nothing is left to do",
			change: func(s *State) {
				resized(s)
				s.Grown, s.Checked, s.Sized = 2, 2, 2
				s.Given["main-0"] = given
			},
		},
		"AfterARestartOfTheAgent": {
			reason: "an agent that remembers nothing does again what is idempotent, and leaves alone what the runtime reports to be right",
			change: func(s *State) {
				resized(s)
				s.Runtime.Containers[0].Resources = &given
				s.Grown, s.Checked = 2, 2
			},
			want: []Action{shrink},
		},
		"NotReported": {
			reason: "a runtime that does not report resources is called once",
			change: func(s *State) {
				resized(s)
				s.Runtime.Containers[0].Resources = nil
				s.Grown, s.Checked = 2, 2
			},
			want: []Action{change},
		},
		"Starting": {
			reason: "a container that is being made has perhaps the old size",
			change: func(s *State) {
				resized(s)
				s.Runtime.Containers = nil
				s.InFlight[slotStart("main")] = StartContainer{Name: "main"}
			},
		},
		"StartWaitsForRoom": {
			reason: "a container is made with the new size, for which the limit of its Pod must be high enough",
			change: func(s *State) {
				resized(s)
				s.Runtime.Containers = nil
				s.Images["main"] = "sha256:1"
			},
			want: []Action{grow},
		},
		"StartWaitsForNoMore": {
			reason: "a container that crashed is started although another one cannot shrink yet",
			change: func(s *State) {
				resized(s)
				s.Grown = 2
				s.Failures[SlotResize] = Failure{RetryAt: epoch.Add(time.Second)}
				s.Runtime.Containers = nil
				s.Images["main"] = "sha256:1"
			},
			want: []Action{StartContainer{Name: "main", SandboxID: "sb1", ImageRef: "sha256:1", Reason: "it has not run yet"}},
			next: epoch.Add(time.Second),
		},
		"Restart": {
			reason: "a container whose resizePolicy says so is restarted, and the Pod shrinks only then",
			change: func(s *State) {
				resized(s)
				restartPolicy(s)
				s.Grown, s.Checked = 2, 2
			},
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch.Add(30 * time.Second), Reason: "its resources changed",
				Begun: Stopping{
					Since: epoch, Restart: true, Grace: 30 * time.Second, Reason: "its resources changed",
					Message: "Container main resize requires restart",
				},
			}},
		},
		"RestartForAnother": {
			reason: "a policy for memory does not restart a container whose CPU changed",
			change: func(s *State) {
				resized(s)
				restartPolicy(s)
				s.Runtime.Containers[0].Annotations["flyball.dev/resources"] = `{"container":{"limits":{"cpu":"1","memory":"200Mi"}}}`
				s.Grown, s.Checked = 2, 2
			},
			want: []Action{change},
		},
		"Restarted": {
			reason: "a container that was stopped to be resized starts at once, whatever its policy",
			change: func(s *State) {
				resized(s)
				restartPolicy(s)
				s.Pod.Spec.RestartPolicy = v1.RestartPolicyOnFailure
				s.Grown, s.Checked, s.Sized = 2, 2, 2
				c := &s.Runtime.Containers[0]
				c.State, c.FinishedAt = cri.Exited, epoch
				c.Annotations[AnnotationBackOff] = "3"
				s.Stopping[c.ID] = Stopping{Restart: true}
				s.Images["main"] = "sha256:1"
			},
			want: []Action{StartContainer{
				Name: "main", Attempt: 1, SandboxID: "sb1", ImageRef: "sha256:1", Reason: "attempt 0 ended with exit code 0",
			}},
		},
		"Ending": {
			reason: "of a Pod that ends nothing is resized any more",
			change: func(s *State) {
				resized(s)
				s.Runtime = cri.Pod{}
				s.InFlight[SlotResize] = grow
				deleted(s, 30)
			},
			want: []Action{Cancel{SlotResize, "the Pod is deleted"}},
		},
	})
}

func TestResizeStatus(t *testing.T) {
	cases := map[string]struct {
		reason string
		change func(*State)
		want   []v1.PodCondition
		memory string
	}{
		"Deferred": {
			reason: "a resize that is not granted is reported, with the generation that was decided about",
			change: func(s *State) { s.Pending = &Pending{Reason: "OutOfcpu", Message: "too much", Generation: 2} },
			want:   []v1.PodCondition{{Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: v1.PodReasonDeferred, Message: "too much", ObservedGeneration: 2}},
			memory: "100Mi",
		},
		"Infeasible": {
			reason: "one that never will be has a reason of its own",
			change: func(s *State) {
				s.Pending = &Pending{Reason: v1.PodReasonInfeasible, Message: "far too much", Generation: 2}
			},
			want:   []v1.PodCondition{{Type: v1.PodResizePending, Status: v1.ConditionTrue, Reason: v1.PodReasonInfeasible, Message: "far too much", ObservedGeneration: 2}},
			memory: "100Mi",
		},
		"InProgress": {
			reason: "until all is done the container reports what it has",
			change: resized,
			want:   []v1.PodCondition{{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: 2}},
			memory: "100Mi",
		},
		"Error": {
			reason: "why it does not go on stands in the condition",
			change: func(s *State) {
				resized(s)
				s.Pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: 2}}
				s.Failures[SlotResize] = Failure{Reason: v1.PodReasonError, Message: "no"}
			},
			want:   []v1.PodCondition{{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, Reason: v1.PodReasonError, Message: "no", ObservedGeneration: 2}},
			memory: "100Mi",
		},
		"Completed": {
			reason: "the end is reported also by an agent that did not see the beginning",
			change: func(s *State) {
				resized(s)
				s.Pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodResizeInProgress, Status: v1.ConditionTrue, ObservedGeneration: 2}}
				s.Runtime.Containers[0].Resources.Memory = 200 * mi
				s.Sized = 2
			},
			memory: "200Mi",
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := base()
			setMemory(&s.Pod.Spec.Containers[0], 100*mi)
			tc.change(s)
			st := Status(*s, epoch)
			var got []v1.PodCondition
			for _, c := range st.Conditions {
				if c.Type == v1.PodResizePending || c.Type == v1.PodResizeInProgress {
					c.LastTransitionTime = v1.PodCondition{}.LastTransitionTime
					got = append(got, c)
				}
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			if q := st.ContainerStatuses[0].Resources.Limits[v1.ResourceMemory]; q.Cmp(resource.MustParse(tc.memory)) != 0 {
				t.Errorf("%s: memory is %s, want %s", tc.reason, q.String(), tc.memory)
			}
		})
	}
}
