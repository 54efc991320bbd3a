package plan

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// base is a Pod with one container that runs undisturbed.
func base() *State {
	w := newWorld(testPod(nil), nil)
	s := w.state
	s.Pod.Status.Phase = v1.PodRunning
	s.Mounted = true
	s.Runtime = cri.Pod{
		Sandboxes:  []cri.Sandbox{{ID: "sb1", Ready: true, IPs: []string{"10.0.0.1"}}},
		Containers: []cri.Container{instance("main", 0, cri.Running)},
	}
	s.Probes = map[string]cri.Probed{"main": good("main-0")}
	return &s
}

func good(id string) cri.Probed {
	return cri.Probed{ContainerID: id, Started: true, Ready: true}
}

func instance(name string, attempt uint32, state cri.ContainerState) cri.Container {
	c := cri.Container{
		ID: name + "-" + strconv.Itoa(int(attempt)), Name: name, SandboxID: "sb1", Attempt: attempt, State: state,
		StartedAt: epoch.Add(-time.Minute), Annotations: map[string]string{AnnotationBackOff: "0"},
	}
	if state == cri.Exited {
		c.FinishedAt, c.ExitCode = epoch, 1
	}
	return c
}

func sidecar(name string) v1.Container {
	return v1.Container{Name: name, RestartPolicy: ptr.To(v1.ContainerRestartPolicyAlways)}
}

func deleted(s *State, grace int64) {
	s.Pod.DeletionTimestamp = &metav1.Time{Time: epoch}
	s.Pod.DeletionGracePeriodSeconds = &grace
	s.Ending = epoch
}

func stopping(grace time.Duration, reason, message string) Stopping {
	return Stopping{Since: epoch, Grace: grace, Reason: Reason(reason), Message: message}
}

type planCase struct {
	reason string
	change func(*State)
	want   []Action
	next   time.Time
}

func runPlanCases(t *testing.T, cases map[string]planCase) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := base()
			tc.change(s)
			got, next := Plan(*s, epoch)
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			if !next.Equal(tc.next) {
				t.Errorf("%s: next sync at %s, want %s", tc.reason, next, tc.next)
			}
		})
	}
}

func TestPlanStart(t *testing.T) {
	started := StartContainer{Name: "main", SandboxID: "sb1", ImageRef: "sha256:1", Reason: "it has not run yet"}
	runPlanCases(t, map[string]planCase{
		"Running": {
			reason: "what runs as it should is left alone",
			change: func(*State) {},
		},
		"New": {
			reason: "volumes, sandbox and image are made ready side by side",
			change: func(s *State) { s.Runtime, s.Mounted = cri.Pod{}, false },
			want: []Action{
				MountVolumes{"the Pod is to run here"},
				CreateSandbox{Reason: "the Pod has no sandbox"},
				PullImage{"main", "it has not run yet"},
			},
		},
		"Ready": {
			reason: "a container starts once it has sandbox, volumes and image",
			change: func(s *State) { s.Runtime.Containers, s.Images["main"] = nil, "sha256:1" },
			want:   []Action{started},
		},
		"VolumesMissing": {
			reason: "no container starts without its volumes",
			change: func(s *State) {
				s.Runtime.Containers, s.Images["main"], s.Mounted = nil, "sha256:1", false
				s.InFlight[slotNode] = MountVolumes{}
			},
		},
		"VolumesFailed": {
			reason: "a failure is repeated when its pause is over",
			change: func(s *State) {
				s.Mounted = false
				s.Failures[slotNode] = Failure{RetryAt: epoch.Add(time.Second)}
			},
			next: epoch.Add(time.Second),
		},
		"NotStarted": {
			reason: "a container that was created, but never started, is replaced",
			change: func(s *State) { s.Runtime.Containers = []cri.Container{instance("main", 0, cri.Created)} },
			want:   []Action{RemoveContainer{"main-0", "main", "it was created, but never started"}},
		},
		"InitFirst": {
			reason: "no regular container before the init containers",
			change: func(s *State) {
				s.Pod.Spec.InitContainers = []v1.Container{{Name: "i1"}, {Name: "i2"}}
				s.Runtime.Containers = nil
			},
			want: []Action{PullImage{"i1", "it has not run yet"}},
		},
		"InitNext": {
			reason: "the next init container follows one that succeeded",
			change: func(s *State) {
				s.Pod.Spec.InitContainers = []v1.Container{{Name: "i1"}, {Name: "i2"}}
				i1 := instance("i1", 0, cri.Exited)
				i1.ExitCode = 0
				s.Runtime.Containers = []cri.Container{i1}
			},
			want: []Action{PullImage{"i2", "it has not run yet"}},
		},
		"SidecarNotStarted": {
			reason: "a sidecar holds the others back until its startup probe succeeds",
			change: func(s *State) {
				side := sidecar("side")
				side.StartupProbe = &v1.Probe{}
				s.Pod.Spec.InitContainers = []v1.Container{side}
				s.Runtime.Containers = []cri.Container{instance("side", 0, cri.Running)}
			},
		},
		"SidecarStarted": {
			reason: "then the regular containers start beside it",
			change: func(s *State) {
				s.Pod.Spec.InitContainers = []v1.Container{sidecar("side")}
				s.Runtime.Containers = []cri.Container{instance("side", 0, cri.Running)}
			},
			want: []Action{PullImage{"main", "it has not run yet"}},
		},
		"PostStart": {
			reason: "a postStart hook holds the containers after it back",
			change: func(s *State) {
				s.Pod.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: &v1.LifecycleHandler{Sleep: &v1.SleepAction{}}}
				s.Pod.Spec.Containers = append(s.Pod.Spec.Containers, v1.Container{Name: "other"})
				s.InFlight[slotStart("main")] = started
			},
		},
		"PostStartNoImage": {
			reason: "a container whose image cannot be pulled holds no other back, whatever its hook",
			change: func(s *State) {
				s.Runtime.Containers = nil
				s.Pod.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PostStart: &v1.LifecycleHandler{Sleep: &v1.SleepAction{}}}
				s.Pod.Spec.Containers = append(s.Pod.Spec.Containers, v1.Container{Name: "other"})
				s.Failures[slotImage("main")] = Failure{Reason: "ImagePullBackOff", RetryAt: epoch.Add(time.Minute)}
			},
			want: []Action{PullImage{"other", "it has not run yet"}},
			next: epoch.Add(time.Minute),
		},
		"SandboxLost": {
			reason: "what still runs in a lost sandbox ends before there is a new one",
			change: func(s *State) { s.Runtime.Sandboxes[0].Ready = false },
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch.Add(30 * time.Second), Reason: "its sandbox is lost",
				Begun: stopping(30*time.Second, "its sandbox is lost", "Stopping container main"),
			}},
		},
		"SandboxAgain": {
			reason: "the next sandbox has the next attempt; init containers run again",
			change: func(s *State) {
				s.Pod.Spec.InitContainers = []v1.Container{{Name: "i1"}}
				s.Runtime.Sandboxes[0].Ready = false
				s.Stopped["sb1"] = true
				s.Runtime.Containers = []cri.Container{instance("i1", 0, cri.Exited), instance("main", 0, cri.Exited)}
			},
			want: []Action{
				CreateSandbox{Attempt: 1, Replaces: true, Reason: "the sandbox was lost"},
				PullImage{"i1", "attempt 0 ended with exit code 1"},
			},
		},
	})
}

func TestPlanRestart(t *testing.T) {
	crashed := func(restarts int, ran time.Duration) func(*State) {
		return func(s *State) {
			c := instance("main", 7, cri.Exited)
			c.StartedAt = epoch.Add(-ran)
			c.Annotations[AnnotationBackOff] = strconv.Itoa(restarts)
			s.Runtime.Containers = []cri.Container{c}
			s.Images["main"] = "sha256:1"
		}
	}
	again := func(backOff int) []Action {
		return []Action{StartContainer{
			Name: "main", Attempt: 8, SandboxID: "sb1", ImageRef: "sha256:1", BackOff: backOff, Reason: "attempt 7 ended with exit code 1",
		}}
	}
	waits := func(d time.Duration) []Action {
		return []Action{ReportBackOff{"main", epoch.Add(d), "attempt 7 ended with exit code 1"}}
	}
	runPlanCases(t, map[string]planCase{
		"First":  {reason: "the first restart is immediate", change: crashed(0, time.Second), want: again(1)},
		"Second": {reason: "the second waits", change: crashed(1, time.Second), want: waits(10 * time.Second), next: epoch.Add(10 * time.Second)},
		"Third":  {reason: "each waits twice as long", change: crashed(2, time.Second), want: waits(20 * time.Second), next: epoch.Add(20 * time.Second)},
		"Many":   {reason: "five minutes at most", change: crashed(99, time.Second), want: waits(5 * time.Minute), next: epoch.Add(5 * time.Minute)},
		"Ran":    {reason: "ten minutes of running forgive everything", change: crashed(99, 10*time.Minute), want: again(1)},
		"Reported": {
			reason: "a back-off is reported once",
			change: func(s *State) { crashed(1, time.Second)(s); s.BackOff["main"] = epoch.Add(10 * time.Second) },
			next:   epoch.Add(10 * time.Second),
		},
		"Never": {
			reason: "a container that must not restart ends the Pod",
			change: func(s *State) { crashed(0, time.Second)(s); s.Pod.Spec.RestartPolicy = v1.RestartPolicyNever },
			want:   []Action{StopSandbox{"sb1", "all containers have ended"}},
		},
		"Forgotten": {
			reason: "what the runtime lost, but the API server knows, keeps counting",
			change: func(s *State) {
				s.Runtime.Containers, s.Images["main"] = nil, "sha256:1"
				s.Pod.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "main", ContainerID: "containerd://x", RestartCount: 4}}
			},
			want: []Action{StartContainer{Name: "main", Attempt: 5, SandboxID: "sb1", ImageRef: "sha256:1", Reason: "the runtime has lost it"}},
		},
		"ForgottenAndCounted": {
			reason: "also when the status has counted the loss already",
			change: func(s *State) {
				s.Runtime.Containers, s.Images["main"] = nil, "sha256:1"
				s.Pod.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "main", RestartCount: 5}}
			},
			want: []Action{StartContainer{Name: "main", Attempt: 5, SandboxID: "sb1", ImageRef: "sha256:1", Reason: "the runtime has lost it"}},
		},
		"Liveness": {
			reason: "a failed liveness probe ends the container, with the grace of the probe",
			change: func(s *State) {
				r := good("main-0")
				r.Failed, r.TerminationGracePeriodSeconds = "liveness", ptr.To[int64](3)
				s.Probes["main"] = r
			},
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch.Add(3 * time.Second), Reason: "its liveness probe failed",
				Begun: stopping(3*time.Second, "its liveness probe failed", "Container main failed liveness probe, will be restarted"),
			}},
		},
		"LivenessOfAnother": {
			reason: "a result of an earlier instance means nothing",
			change: func(s *State) { s.Probes["main"] = cri.Probed{ContainerID: "main-9", Failed: "liveness"} },
		},
		"Changed": {
			reason: "a new image restarts the container",
			change: func(s *State) {
				s.Hashes["main"] = "new"
				s.Runtime.Containers[0].Annotations["io.kubernetes.container.hash"] = "old"
			},
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch.Add(30 * time.Second), Reason: "its definition changed",
				Begun: Stopping{
					Since: epoch, Grace: 30 * time.Second, Restart: true, Reason: "its definition changed",
					Message: "Container main definition changed, will be restarted",
				},
			}},
		},
		"OldDead": {
			reason: "one dead instance is kept for lastState and logs --previous",
			change: func(s *State) {
				s.Runtime.Containers = []cri.Container{
					instance("main", 2, cri.Running), instance("main", 1, cri.Exited), instance("main", 0, cri.Exited),
				}
				s.Probes["main"] = good("main-2")
			},
			want: []Action{RemoveContainer{"main-0", "main", "a newer instance has replaced it"}},
		},
	})
}
