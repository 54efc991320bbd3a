package plan

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/cri"
)

func TestPlanEnd(t *testing.T) {
	const why = "the Pod is deleted"
	stop := func(name string, deadline time.Duration) StopContainer {
		return StopContainer{
			ID: name + "-0", Name: name, Deadline: epoch.Add(deadline), Reason: why,
			Begun: stopping(deadline, why, "Stopping container "+name),
		}
	}
	withSidecars := func(s *State) {
		s.Pod.Spec.InitContainers = []v1.Container{sidecar("s1"), sidecar("s2")}
		s.Runtime.Containers = []cri.Container{
			instance("main", 0, cri.Running), instance("s1", 0, cri.Running), instance("s2", 0, cri.Running),
		}
	}
	dead := func(s *State) {
		s.Runtime.Containers = []cri.Container{instance("main", 0, cri.Exited)}
		s.Runtime.Sandboxes[0].Ready = false
	}
	hook := func(s *State) {
		s.Pod.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{Sleep: &v1.SleepAction{}}}
	}
	runPlanCases(t, map[string]planCase{
		"Deleted": {
			reason: "a deleted Pod ends",
			change: func(s *State) { deleted(s, 20) },
			want:   []Action{stop("main", 20*time.Second)},
		},
		"Underway": {
			reason: "what is stopping is left alone",
			change: func(s *State) { deleted(s, 20); s.InFlight[slotStop("main-0")] = stop("main", 20*time.Second) },
		},
		"Shorter": {
			reason: "a shorter grace takes the place of a longer one",
			change: func(s *State) {
				deleted(s, 1)
				s.InFlight[slotStop("main-0")] = stop("main", 20*time.Second)
				s.Stopping["main-0"] = stopping(20*time.Second, why, "")
			},
			want: []Action{stop("main", time.Second)},
		},
		"Starting": {
			reason: "what is under way is given up",
			change: func(s *State) {
				deleted(s, 20)
				s.Runtime.Containers = nil
				s.InFlight[slotImage("main")] = PullImage{Name: "main"}
			},
			want: []Action{Cancel{slotImage("main"), why}},
		},
		"PreStop": {
			reason: "first the preStop hook",
			change: func(s *State) { deleted(s, 20); hook(s) },
			want: []Action{RunPreStop{
				ID: "main-0", Name: "main", Deadline: epoch.Add(20 * time.Second), Reason: why,
				Begun: stopping(20*time.Second, why, "Stopping container main"),
			}},
			next: epoch.Add(20 * time.Second),
		},
		"PreStopLate": {
			reason: "a hook that takes all of the grace is not waited for",
			change: func(s *State) {
				deleted(s, 20)
				hook(s)
				s.Ending = epoch.Add(-20 * time.Second)
				s.Stopping["main-0"] = Stopping{Since: s.Ending, Grace: 20 * time.Second}
				s.InFlight[slotStop("main-0")] = RunPreStop{}
			},
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch, Reason: why,
				Begun: Stopping{Since: epoch.Add(-20 * time.Second), Grace: 20 * time.Second, Reason: why, Message: "Stopping container main"},
			}},
		},
		"Sidecars": {
			reason: "sidecars outlive the regular containers",
			change: func(s *State) { withSidecars(s); deleted(s, 20) },
			want:   []Action{stop("main", 20*time.Second)},
			next:   epoch.Add(20 * time.Second),
		},
		"SidecarsReverse": {
			reason: "then they end, the last one first",
			change: func(s *State) {
				withSidecars(s)
				deleted(s, 20)
				s.Runtime.Containers[0].State = cri.Exited
			},
			want: []Action{stop("s2", 20*time.Second)},
			next: epoch.Add(20 * time.Second),
		},
		"StopSandbox": {
			reason: "once nothing runs, the network is given back",
			change: func(s *State) { dead(s); deleted(s, 20) },
			want:   []Action{StopSandbox{"sb1", why}},
		},
		"CleanUp": {
			reason: "volumes and cgroup go when the sandbox has stopped",
			change: func(s *State) { dead(s); deleted(s, 20); s.Stopped["sb1"] = true },
			want:   []Action{CleanUp{why}},
		},
		"Unreported": {
			reason: "the Pod is not deleted before its last status is written",
			change: func(s *State) { dead(s); deleted(s, 20); s.Stopped["sb1"], s.Cleaned = true, true },
		},
		"Delete": {
			reason: "then it is",
			change: func(s *State) { dead(s); deleted(s, 20); s.Stopped["sb1"], s.Cleaned, s.Reported = true, true, true },
			want:   []Action{DeletePod{"everything of the Pod is cleaned up"}},
		},
		"Finalizers": {
			reason: "finalizers of others may keep it; we are done",
			change: func(s *State) {
				dead(s)
				deleted(s, 20)
				s.Stopped["sb1"], s.Cleaned, s.Reported, s.Deleted = true, true, true, true
			},
		},
		"Gone": {
			reason: "of a Pod that the API server does not know, nothing stays",
			change: func(s *State) { dead(s); s.Pod = nil; s.Stopped["sb1"], s.Cleaned = true, true },
			want: []Action{
				Purge{"the API server does not know the Pod"},
				RemoveSandbox{"sb1", "the API server does not know the Pod"},
			},
		},
		"Deadline": {
			reason: "activeDeadlineSeconds end the Pod",
			change: func(s *State) {
				s.Pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](60)
				s.Pod.Status.StartTime = &metav1.Time{Time: epoch.Add(-time.Minute)}
			},
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch.Add(30 * time.Second), Reason: "the node ends the Pod: DeadlineExceeded",
				Begun: stopping(30*time.Second, "the node ends the Pod: DeadlineExceeded", "Stopping container main"),
			}},
		},
		"Terminated": {
			reason: "the node may shorten the grace period, and keeps the Pod although its containers would restart",
			change: func(s *State) {
				s.Termination = &Termination{Reason: "Evicted", GracePeriodSeconds: ptr.To[int64](5)}
			},
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch.Add(5 * time.Second), Reason: "the node ends the Pod: Evicted",
				Begun: stopping(5*time.Second, "the node ends the Pod: Evicted", "Stopping container main"),
			}},
		},
		"TerminatedNotLater": {
			reason: "the node cannot lengthen the grace period",
			change: func(s *State) {
				s.Termination = &Termination{Reason: "Terminated", GracePeriodSeconds: ptr.To[int64](50)}
			},
			want: []Action{StopContainer{
				ID: "main-0", Name: "main", Deadline: epoch.Add(30 * time.Second), Reason: "the node ends the Pod: Terminated",
				Begun: stopping(30*time.Second, "the node ends the Pod: Terminated", "Stopping container main"),
			}},
		},
		"BeforeDeadline": {
			reason: "before that the Pod only syncs again in time",
			change: func(s *State) {
				s.Pod.Spec.ActiveDeadlineSeconds = ptr.To[int64](60)
				s.Pod.Status.StartTime = &metav1.Time{Time: epoch}
			},
			next: epoch.Add(time.Minute),
		},
		"InitFailed": {
			reason: "an init container that must not run again ends the Pod",
			change: func(s *State) {
				s.Pod.Spec.RestartPolicy = v1.RestartPolicyNever
				s.Pod.Spec.InitContainers = []v1.Container{{Name: "i1"}}
				s.Runtime.Containers = []cri.Container{instance("i1", 0, cri.Exited)}
			},
			want: []Action{StopSandbox{"sb1", "an init container failed"}},
		},
	})
}
