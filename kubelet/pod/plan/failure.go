package plan

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// Reasons that a container waits with, upstream's.
const (
	ReasonCreateContainerError       = "CreateContainerError"
	ReasonCreateContainerConfigError = "CreateContainerConfigError"
	ReasonRunContainerError          = "RunContainerError"
	ReasonPostStartHookError         = "PostStartHookError"
	reasonRestartingAll              = "RestartingAllContainers"
)

const messageRestartingAll = "All containers of the Pod restart in place"

// NewFailure says what a failed action means: what the container waits with, and when the action is
// planned again. The pause grows with each failure in a row.
func NewFailure(a Action, reason, message string, before Failure, now time.Time) Failure {
	f := Failure{Reason: reason, Message: message, Count: before.Count + 1}
	first, longest := 250*time.Millisecond, 10*time.Second
	switch a.(type) {
	case MountVolumes:
		first, longest = 500*time.Millisecond, 2*time.Minute
	case StartContainer:
		first = time.Second
	case GrowCgroup, CheckMemory, ResizeContainer, ShrinkCgroup:
		first, longest = time.Second, 30*time.Second
		if f.Reason == "" {
			f.Reason = v1.PodReasonError
		}
	case StopContainer, RemoveContainer, StopSandbox, RemoveSandbox, CleanUp, DeletePod:
		longest = 30 * time.Second
	}
	if reason != ReasonRunContainerError && reason != ReasonPostStartHookError {
		f.RetryAt = now.Add(min(first<<min(before.Count, 10), longest))
	} // else the dead container decides, see backOff
	return f
}
