package plan

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// brief is a status as kubectl get shows it, and the conditions that hold.
type brief struct {
	Phase      v1.PodPhase
	Reason     string
	Containers map[string]string
	True       []v1.PodConditionType
}

func briefly(st v1.PodStatus) brief {
	b := brief{Phase: st.Phase, Reason: st.Reason, Containers: map[string]string{}}
	for _, list := range [][]v1.ContainerStatus{st.InitContainerStatuses, st.ContainerStatuses, st.EphemeralContainerStatuses} {
		for i := range list {
			text := stateText(list[i].State)
			if list[i].State.Terminated != nil {
				text += " " + list[i].State.Terminated.Reason
			}
			if list[i].LastTerminationState.Terminated != nil {
				text += ", was " + list[i].LastTerminationState.Terminated.Reason
			}
			if list[i].Ready {
				text += ", ready"
			}
			b.Containers[list[i].Name] = text
		}
	}
	for _, t := range []v1.PodConditionType{v1.PodScheduled, v1.PodReadyToStartContainers, v1.PodInitialized, v1.ContainersReady, v1.PodReady, v1.DisruptionTarget} {
		if _, c := podutil.GetPodCondition(&st, t); c != nil && c.Status == v1.ConditionTrue {
			b.True = append(b.True, t)
		}
	}
	return b
}

func TestStatus(t *testing.T) {
	up := []v1.PodConditionType{v1.PodScheduled, v1.PodReadyToStartContainers, v1.PodInitialized, v1.ContainersReady, v1.PodReady}
	unready := up[:3]
	exited := func(code int32, reason string) cri.Container {
		c := instance("main", 0, cri.Exited)
		c.ExitCode, c.Reason = code, reason
		return c
	}
	never := func(s *State) { s.Pod.Spec.RestartPolicy = v1.RestartPolicyNever }
	only := func(state string) map[string]string { return map[string]string{"main": state} }
	cases := map[string]struct {
		reason string
		change func(*State)
		want   brief
	}{
		"Running": {
			reason: "all is well",
			change: func(*State) {},
			want:   brief{Phase: v1.PodRunning, Containers: only("Running, ready"), True: up},
		},
		"New": {
			reason: "nothing is there yet",
			change: func(s *State) { s.Runtime, s.Pod.Status.Phase = cri.Pod{}, v1.PodPending },
			want: brief{
				Phase: v1.PodPending, Containers: only("ContainerCreating"), True: []v1.PodConditionType{v1.PodScheduled, v1.PodInitialized},
			},
		},
		"NoImage": {
			reason: "the failure of an image is what the container waits with",
			change: func(s *State) {
				s.Runtime.Containers, s.Pod.Status.Phase = nil, v1.PodPending
				s.Failures[slotImage("main")] = Failure{Reason: "ImagePullBackOff"}
			},
			want: brief{Phase: v1.PodPending, Containers: only("ImagePullBackOff"), True: unready},
		},
		"Initializing": {
			reason: "regular containers wait for the init containers",
			change: func(s *State) {
				s.Pod.Spec.InitContainers = []v1.Container{{Name: "i1"}}
				s.Runtime.Containers, s.Pod.Status.Phase = []cri.Container{instance("i1", 0, cri.Running)}, v1.PodPending
			},
			want: brief{Phase: v1.PodPending, Containers: map[string]string{"i1": "Running", "main": "PodInitializing"}, True: up[:2]},
		},
		"PostStart": {
			reason: "a container is not running before its postStart hook is through",
			change: func(s *State) {
				s.InFlight[slotStart("main")] = StartContainer{Name: "main"}
				s.Pod.Status.Phase = v1.PodPending
			},
			want: brief{Phase: v1.PodPending, Containers: only("ContainerCreating"), True: unready},
		},
		"NotReady": {
			reason: "a failing readiness probe makes the Pod unready",
			change: func(s *State) {
				s.Pod.Spec.Containers[0].ReadinessProbe = &v1.Probe{}
				r := good("main-0")
				r.Ready = false
				s.Probes["main"] = r
			},
			want: brief{Phase: v1.PodRunning, Containers: only("Running"), True: unready},
		},
		"CrashLoop": {
			reason: "a container that waits for its restart says so, and how it ended",
			change: func(s *State) {
				c := exited(1, "Error")
				c.Annotations[AnnotationBackOff] = "2"
				s.Runtime.Containers = []cri.Container{c}
			},
			want: brief{Phase: v1.PodRunning, Containers: only("CrashLoopBackOff, was Error"), True: unready},
		},
		"Restarted": {
			reason: "a restarted container says how it ended before",
			change: func(s *State) {
				s.Runtime.Containers = []cri.Container{instance("main", 1, cri.Running), exited(1, "OOMKilled")}
			},
			want: brief{Phase: v1.PodRunning, Containers: only("Running, was OOMKilled, ready"), True: up},
		},
		"Succeeded": {
			reason: "all containers ended well",
			change: func(s *State) { never(s); s.Runtime.Containers = []cri.Container{exited(0, "Completed")} },
			want:   brief{Phase: v1.PodSucceeded, Containers: only("Terminated Completed"), True: unready},
		},
		"Failed": {
			reason: "one did not",
			change: func(s *State) { never(s); s.Runtime.Containers = []cri.Container{exited(3, "Error")} },
			want:   brief{Phase: v1.PodFailed, Containers: only("Terminated Error"), True: unready},
		},
		"SidecarRuns": {
			reason: "no terminal phase while a sidecar runs",
			change: func(s *State) {
				never(s)
				s.Pod.Spec.InitContainers = []v1.Container{sidecar("side")}
				s.Runtime.Containers = []cri.Container{exited(0, "Completed"), instance("side", 0, cri.Running)}
			},
			want: brief{Phase: v1.PodRunning, Containers: map[string]string{"main": "Terminated Completed", "side": "Running, ready"}, True: unready},
		},
		"Deadline": {
			reason: "a Pod over its deadline has failed once nothing runs",
			change: func(s *State) {
				s.Pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](60)
				s.Pod.Status.StartTime = &metav1.Time{Time: epoch.Add(-time.Minute)}
				s.Runtime.Containers = []cri.Container{exited(0, "Completed")}
			},
			want: brief{Phase: v1.PodFailed, Reason: "DeadlineExceeded", Containers: only("Terminated Completed"), True: unready},
		},
		"Terminating": {
			reason: "the decision of the node is recorded before the containers end, see recorded",
			change: func(s *State) { s.Termination = &Termination{Reason: "Evicted", Disruption: "memory is low"} },
			want: brief{
				Phase: v1.PodRunning, Reason: "Evicted", Containers: only("Running, ready"),
				True: append(slices.Clone(up), v1.DisruptionTarget),
			},
		},
		"Terminated": {
			reason: "what the node ended has failed, even with exit code 0",
			change: func(s *State) {
				never(s)
				s.Termination = &Termination{Reason: "Evicted"}
				s.Runtime.Containers = []cri.Container{exited(0, "Completed")}
			},
			want: brief{Phase: v1.PodFailed, Reason: "Evicted", Containers: only("Terminated Completed"), True: unready},
		},
		"TerminatedEarlier": {
			reason: "another process of the agent decided, and was killed before the end of the Pod",
			change: func(s *State) {
				s.Termination = &Termination{Reason: "Evicted", Disruption: "memory is low"}
				s.Pod.Status = Status(*s, epoch)
				s.Memory = NewMemory()
				s.Runtime.Containers = []cri.Container{exited(137, "Error")}
			},
			want: brief{
				Phase: v1.PodFailed, Reason: "Evicted", Containers: only("Terminated Error"),
				True: append(slices.Clone(unready), v1.DisruptionTarget),
			},
		},
		"Refused": {
			reason: "clients would show the containers, and not the reason",
			change: func(s *State) { s.Termination, s.Runtime = Refuse("OutOfcpu", "too small"), cri.Pod{} },
			want:   brief{Phase: v1.PodFailed, Reason: "OutOfcpu", Containers: map[string]string{}},
		},
		"Lost": {
			reason: "a container of a deleted Pod that nobody can find has ended somehow",
			change: func(s *State) {
				s.Pod.Status.ContainerStatuses = []v1.ContainerStatus{{
					Name: "main", ContainerID: "containerd://x", State: v1.ContainerState{Running: &v1.ContainerStateRunning{}},
				}}
				s.Runtime = cri.Pod{}
				deleted(s, 1)
			},
			want: brief{
				Phase: v1.PodFailed, Containers: only("Terminated ContainerStatusUnknown"),
				True: []v1.PodConditionType{v1.PodScheduled, v1.PodInitialized},
			},
		},
		"Gate": {
			reason: "readiness gates hold Ready back, not ContainersReady",
			change: func(s *State) { s.Pod.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "example.com/up"}} },
			want:   brief{Phase: v1.PodRunning, Containers: only("Running, ready"), True: up[:4]},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := base()
			tc.change(s)
			if d := cmp.Diff(tc.want, briefly(Status(*s, epoch))); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

// TestStatusIsStable: nothing new, nothing to write.
func TestStatusIsStable(t *testing.T) {
	s := base()
	s.Pod.Status.Conditions = []v1.PodCondition{{Type: "example.com/foreign", Status: v1.ConditionTrue}}
	first := Status(*s, epoch)
	s.Status = &first
	s.Pod.Status = first
	if d := cmp.Diff(first, Status(*s, epoch.Add(time.Hour))); d != "" {
		t.Errorf("an hour later (-want +got):\n%s", d)
	}
	if _, c := podutil.GetPodCondition(&first, "example.com/foreign"); c == nil {
		t.Error("the condition of another writer is lost")
	}
}

func stateText(s v1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "Running"
	case s.Terminated != nil:
		return "Terminated"
	case s.Waiting != nil:
		return s.Waiting.Reason
	}
	return ""
}
