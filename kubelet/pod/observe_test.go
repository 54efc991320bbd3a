package pod

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
)

// TestWithCutOffStarts: a start that was cut off is none, unless its end was reported already: the
// API server refuses a container that waits where one had ended.
func TestWithCutOffStarts(t *testing.T) {
	ended := func(id string) []v1.ContainerStatus {
		return []v1.ContainerStatus{{State: v1.ContainerState{
			Terminated: &v1.ContainerStateTerminated{ExitCode: 128, ContainerID: "containerd://" + id},
		}}}
	}
	for name, tc := range map[string]struct {
		reason   string
		reported v1.PodStatus
		want     cri.ContainerState
	}{
		"New":       {"nothing was reported", v1.PodStatus{}, cri.Created},
		"Pending":   {"it was about to start", v1.PodStatus{Phase: v1.PodPending}, cri.Created},
		"Running":   {"another container runs", v1.PodStatus{Phase: v1.PodRunning, ContainerStatuses: ended("c0")}, cri.Created},
		"Failed":    {"the Pod has ended", v1.PodStatus{Phase: v1.PodFailed}, cri.Exited},
		"Succeeded": {"the Pod has ended", v1.PodStatus{Phase: v1.PodSucceeded}, cri.Exited},
		"Ended":     {"only this container has", v1.PodStatus{Phase: v1.PodRunning, ContainerStatuses: ended("c1")}, cri.Exited},
		"InitEnded": {"init containers as well", v1.PodStatus{Phase: v1.PodPending, InitContainerStatuses: ended("c1")}, cri.Exited},
	} {
		t.Run(name, func(t *testing.T) {
			p := cri.Pod{Containers: []cri.Container{{
				ID: "c1", State: cri.Exited, ExitCode: 128, Reason: "StartError", FinishedAt: time.Unix(1, 0),
				Message: `failed to start containerd task "x": context canceled`,
			}}}
			if got := withCutOffStarts(p, tc.reported).Containers[0].State; got != tc.want {
				t.Errorf("%s: it is %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
}
