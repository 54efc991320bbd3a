package plan

import (
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	podutil "k8s.io/kubernetes/pkg/api/v1/pod"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

// restartAllOn makes all containers restart when this one exits with 42.
func restartAllOn(c *v1.Container) {
	if c.RestartPolicy == nil {
		c.RestartPolicy = ptr.To(v1.ContainerRestartPolicyNever)
	}
	c.RestartPolicyRules = []v1.ContainerRestartRule{{
		Action:    v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{Operator: v1.ContainerRestartRuleOnExitCodesOpIn, Values: []int32{42}},
	}}
}

// again is an instance that was made after all containers had restarted so often.
func again(restarts int, c cri.Container) cri.Container {
	c.Annotations[AnnotationAllRestarts] = strconv.Itoa(restarts)
	return c
}

func exitedWith(code int32, after time.Duration, c cri.Container) cri.Container {
	c.State, c.ExitCode, c.FinishedAt = cri.Exited, code, epoch.Add(after)
	return c
}

// withRestartAll is a Pod with an init container, a sidecar, a container main whose end makes all
// restart, and another.
func withRestartAll(s *State) {
	s.Pod.Spec.RestartPolicy = v1.RestartPolicyNever
	s.Pod.Spec.InitContainers = []v1.Container{{Name: "init"}, sidecar("side")}
	s.Pod.Spec.Containers = append(s.Pod.Spec.Containers, v1.Container{Name: "other"})
	restartAllOn(&s.Pod.Spec.Containers[0])
	s.Runtime.Containers = []cri.Container{
		exitedWith(42, 0, instance("main", 0, cri.Exited)), instance("other", 0, cri.Running),
		instance("side", 0, cri.Running), exitedWith(0, -time.Minute, instance("init", 0, cri.Exited)),
	}
	s.Probes["side"], s.Probes["other"] = good("side-0"), good("other-0")
}

func TestPlanRestartAll(t *testing.T) {
	const why = "all containers of the Pod restart"
	stop := func(name string) StopContainer {
		return StopContainer{
			ID: name + "-0", Name: name, Deadline: epoch, Reason: why,
			Begun: stopping(0, why, "Stopping container "+name+", all containers of the Pod restart"),
		}
	}
	dead := func(s *State) {
		withRestartAll(s)
		s.Runtime.Containers[1] = exitedWith(143, time.Second, s.Runtime.Containers[1])
		s.Runtime.Containers[2] = exitedWith(143, 2*time.Second, s.Runtime.Containers[2])
	}
	runPlanCases(t, map[string]planCase{
		"Stop": {
			reason: "the others end at once, without a grace period; sidecars wait for them",
			change: withRestartAll,
			want:   []Action{stop("other")},
		},
		"PreStop": {
			reason: "no preStop hook: the Pod does not go away",
			change: func(s *State) {
				withRestartAll(s)
				s.Pod.Spec.Containers[1].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Sleep: &v1.SleepAction{}}}
			},
			want: []Action{stop("other")},
		},
		"Stopping": {
			reason: "a stop with a grace period, for another reason, is cut short",
			change: func(s *State) {
				withRestartAll(s)
				s.Stopping["other-0"] = stopping(30*time.Second, "its liveness probe failed", "")
				s.InFlight[slotStop("other-0")] = StopContainer{ID: "other-0", Deadline: epoch.Add(30 * time.Second)}
			},
			want: []Action{stop("other")},
		},
		"Sidecars": {
			reason: "then the sidecars",
			change: func(s *State) {
				withRestartAll(s)
				s.Runtime.Containers[1] = exitedWith(143, time.Second, s.Runtime.Containers[1])
			},
			want: []Action{stop("side")},
		},
		"Starting": {
			reason: "a start that began before is given up",
			change: func(s *State) {
				dead(s)
				s.InFlight[slotStart("other")] = StartContainer{Name: "other", Attempt: 1}
			},
			want: []Action{Cancel{slotStart("other"), why}},
		},
		"InitFirst": {
			reason: "once all have ended, the init containers are first, in the same sandbox",
			change: func(s *State) { dead(s); s.Images["init"] = "sha256:1" },
			want: []Action{StartContainer{
				Name: "init", Attempt: 1, SandboxID: "sb1", ImageRef: "sha256:1", AllRestarts: 1, Reason: why,
			}},
		},
		"Next": {
			reason: "then everything else, as in a new Pod; one that was never to run again included",
			change: func(s *State) {
				dead(s)
				init := exitedWith(0, 3*time.Second, again(1, instance("init", 1, cri.Exited)))
				s.Runtime.Containers = append([]cri.Container{init, again(1, instance("side", 1, cri.Running))}, s.Runtime.Containers...)
				s.Probes["side"] = good("side-1")
				s.Images["main"], s.Images["other"] = "sha256:1", "sha256:1"
			},
			want: []Action{
				StartContainer{Name: "main", Attempt: 1, SandboxID: "sb1", ImageRef: "sha256:1", AllRestarts: 1, Reason: why},
				StartContainer{Name: "other", Attempt: 1, SandboxID: "sb1", ImageRef: "sha256:1", AllRestarts: 1, Reason: why},
				RemoveContainer{"init-0", "init", "a newer instance has replaced it"},
			},
		},
		"NoBackOff": {
			reason: "a container that waits for its back-off starts with the others, and its count stays",
			change: func(s *State) {
				dead(s)
				s.Pod.Spec.InitContainers = nil
				s.Runtime.Containers = s.Runtime.Containers[:2]
				s.Runtime.Containers[1].Annotations[AnnotationBackOff] = "3"
				s.InFlight[slotImage("main")] = PullImage{Name: "main"}
				s.Images["other"] = "sha256:1"
			},
			want: []Action{StartContainer{
				Name: "other", Attempt: 1, SandboxID: "sb1", ImageRef: "sha256:1", AllRestarts: 1, BackOff: 3, Reason: why,
			}},
		},
		"Done": {
			reason: "what restarted is left alone",
			change: func(s *State) {
				dead(s)
				s.Pod.Spec.InitContainers = nil
				s.Runtime.Containers = []cri.Container{
					again(1, instance("main", 1, cri.Running)), again(1, instance("other", 1, cri.Running)),
					s.Runtime.Containers[0], s.Runtime.Containers[1],
				}
				s.Probes["main"], s.Probes["other"] = good("main-1"), good("other-1")
			},
		},
		"OtherCode": {
			reason: "an exit code that no rule names is an end like any other",
			change: func(s *State) { withRestartAll(s); s.Runtime.Containers[0].ExitCode = 1 },
		},
		"Init": {
			reason: "an init container makes all restart, too, instead of failing the Pod",
			change: func(s *State) {
				withRestartAll(s)
				restartAllOn(&s.Pod.Spec.InitContainers[0])
				s.Pod.Spec.InitContainers = []v1.Container{sidecar("side"), s.Pod.Spec.InitContainers[0]}
				s.Runtime.Containers = []cri.Container{instance("side", 0, cri.Running), exitedWith(42, 0, instance("init", 0, cri.Exited))}
			},
			want: []Action{stop("side")},
		},
		"SidecarAtTheEnd": {
			reason: "a sidecar that ends because the Pod is done restarts nothing",
			change: func(s *State) {
				withRestartAll(s)
				s.Pod.Spec.Containers = s.Pod.Spec.Containers[:1]
				restartAllOn(&s.Pod.Spec.InitContainers[1])
				s.Runtime.Containers = []cri.Container{
					exitedWith(0, 0, instance("main", 0, cri.Exited)), exitedWith(42, time.Second, instance("side", 0, cri.Exited)),
				}
			},
			want: []Action{StopSandbox{"sb1", "all containers have ended"}},
		},
		"SidecarBefore": {
			reason: "one that ended before does, although the others have ended by now",
			change: func(s *State) {
				withRestartAll(s)
				s.Pod.Spec.Containers = s.Pod.Spec.Containers[:1]
				restartAllOn(&s.Pod.Spec.InitContainers[1])
				s.Runtime.Containers = []cri.Container{
					exitedWith(137, time.Second, instance("main", 0, cri.Exited)), exitedWith(42, 0, instance("side", 0, cri.Exited)),
				}
			},
			want: []Action{PullImage{"init", "it has not run yet"}},
		},
		"Deleted": {
			reason: "a deleted Pod ends, with its grace period",
			change: func(s *State) { withRestartAll(s); deleted(s, 20) },
			want: []Action{StopContainer{
				ID: "other-0", Name: "other", Deadline: epoch.Add(20 * time.Second), Reason: "the Pod is deleted",
				Begun: stopping(20*time.Second, "the Pod is deleted", "Stopping container other"),
			}},
			next: epoch.Add(20 * time.Second),
		},
		"Ephemeral": {
			reason: "ephemeral containers are left alone",
			change: func(s *State) {
				dead(s)
				s.Pod.Spec.EphemeralContainers = []v1.EphemeralContainer{{EphemeralContainerCommon: v1.EphemeralContainerCommon{Name: "debug"}}}
				s.Runtime.Containers = append(s.Runtime.Containers, instance("debug", 0, cri.Running))
			},
			want: []Action{PullImage{"init", why}},
		},
		"SandboxLost": {
			reason: "a sandbox that is lost meanwhile is replaced, whatever the restart policy",
			change: func(s *State) { dead(s); s.Runtime.Sandboxes[0].Ready, s.Stopped["sb1"] = false, true },
			want: []Action{
				CreateSandbox{Attempt: 1, Replaces: true, Reason: "the sandbox was lost"},
				PullImage{"init", why},
			},
		},
	})
}

func TestStatusRestartAll(t *testing.T) {
	cases := map[string]struct {
		reason string
		change func(*State)
		want   brief
		// restarting is the condition, restarts are those of main.
		restarting v1.ConditionStatus
		restarts   int32
	}{
		"Before": {
			reason: "the condition is there from the start",
			change: func(s *State) { s.Runtime.Containers[0] = instance("main", 0, cri.Running) },
			want: brief{Phase: v1.PodRunning, Containers: map[string]string{
				"init": "Terminated , ready", "side": "Running, ready", "main": "Running, ready", "other": "Running, ready",
			}},
			restarting: v1.ConditionFalse,
		},
		"Ending": {
			reason: "while the others end, each shows what it does",
			change: func(*State) {},
			want: brief{Phase: v1.PodRunning, Containers: map[string]string{
				"init": "Terminated , ready", "side": "Running, ready", "main": "Terminated ", "other": "Running, ready",
			}},
			restarting: v1.ConditionTrue,
		},
		"Ended": {
			reason: "then all wait, and how they ended is the past; the restart is counted",
			change: func(s *State) {
				s.Runtime.Containers[1] = exitedWith(143, time.Second, s.Runtime.Containers[1])
				s.Runtime.Containers[2] = exitedWith(143, time.Second, s.Runtime.Containers[2])
			},
			want: brief{Phase: v1.PodPending, Containers: map[string]string{
				"init":  "RestartingAllContainers, was RestartingAllContainers",
				"side":  "RestartingAllContainers, was RestartingAllContainers",
				"main":  "RestartingAllContainers, was RestartingAllContainers",
				"other": "RestartingAllContainers, was RestartingAllContainers",
			}},
			restarting: v1.ConditionTrue, restarts: 1,
		},
		"Initializing": {
			reason: "the first new container ends it: from here it is a start like any other",
			change: func(s *State) {
				s.Runtime.Containers = []cri.Container{
					again(1, instance("init", 1, cri.Running)), s.Runtime.Containers[3], s.Runtime.Containers[0],
				}
			},
			want: brief{Phase: v1.PodPending, Containers: map[string]string{
				"init": "Running, was RestartingAllContainers", "side": "PodInitializing",
				"main": "PodInitializing, was RestartingAllContainers", "other": "PodInitializing",
			}},
			restarting: v1.ConditionFalse, restarts: 1,
		},
		"InitFails": {
			reason: "an init container that fails after the restart fails the Pod",
			change: func(s *State) {
				s.Runtime.Containers = []cri.Container{
					exitedWith(1, time.Minute, again(1, instance("init", 1, cri.Exited))), s.Runtime.Containers[0],
				}
			},
			want: brief{Phase: v1.PodFailed, Containers: map[string]string{
				"init": "Terminated ", "side": "PodInitializing", "main": "Terminated ", "other": "PodInitializing",
			}},
			restarting: v1.ConditionFalse,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := base()
			withRestartAll(s)
			s.Pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodInitialized, Status: v1.ConditionTrue}}
			tc.change(s)
			st := Status(*s, epoch)
			got := briefly(st)
			if _, c := podutil.GetPodCondition(&st, v1.PodInitialized); c.Status != v1.ConditionTrue {
				t.Errorf("Initialized is %s: once initialized a Pod stays so", c.Status)
			}
			got.True = nil
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("%s (-want +got):\n%s", tc.reason, d)
			}
			_, c := podutil.GetPodCondition(&st, v1.AllContainersRestarting)
			if c == nil || c.Status != tc.restarting {
				t.Errorf("%s: AllContainersRestarting is %+v, want %s", tc.reason, c, tc.restarting)
			}
			if n := st.ContainerStatuses[0].RestartCount; n != tc.restarts {
				t.Errorf("%s: main has %d restarts, want %d", tc.reason, n, tc.restarts)
			}
		})
	}
}
