package plan

import (
	"time"

	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/cri"
)

// Memory is what a worker remembers from one sync to the next. It may be lost at any moment: what
// was under way is planned again, what was done is done again (each action is idempotent), and a
// grace period begins anew.
type Memory struct {
	InFlight map[string]Action  // the actions under way, by slot
	Failures map[string]Failure // the last failures, by slot, until the action succeeds
	// Mounted says that the volumes are ready, Stale that the Pod's metadata, which volumes may
	// show, has changed since.
	Mounted, Stale bool
	Images         map[string]string // that are present for the next start, by container name
	Ending         time.Time         // since when the Pod has been over
	// Stopping are the containers that are being stopped, Stopped the sandboxes that StopSandbox
	// has stopped, by ID.
	Stopping map[string]Stopping
	Stopped  map[string]bool
	// Cleaned says that volumes and cgroup are removed, Purged that the logs of a deleted Pod are.
	Cleaned, Purged bool
	Reported        bool // the API server has the final status of the Pod, or refuses it
	// Deleted says that the API server has got the request to delete the Pod. Finalizers may keep
	// the Pod for long.
	Deleted bool
	// BackOff are the times for which BackOff was reported, by container name.
	BackOff map[string]time.Time
	// Grown and Sized are the generations of the allocation that the cgroup of the Pod can hold,
	// and that it has; Checked is the generation that its use of memory allows.
	Grown, Checked, Sized int64
	// Given are the resources that running containers were given, by ID.
	Given map[string]cri.Resources
	// Termination is the node's decision to end the Pod, Announced says that NoteEnd has returned
	// it.
	Termination *Termination
	Announced   bool
	// Status is the last computed status, with the times of transitions.
	Status *v1.PodStatus
}

// Failure of an action.
type Failure struct {
	Reason, Message string // of the waiting container
	Count           int    // of failures in a row
	// RetryAt is when the action is planned again; zero leaves that to the back-off of restarts.
	RetryAt time.Time
}

// Stopping is a container that is being ended.
type Stopping struct {
	Since    time.Time
	HookDone bool // the preStop hook has ended or there is none
	Restart  bool // the container restarts whatever its policy, because its definition changed
	Grace    time.Duration
	Message  string // of the Event
	Reason   Reason
}

// NewMemory is the Memory of a worker that has just started.
func NewMemory() Memory {
	return Memory{
		InFlight: map[string]Action{}, Failures: map[string]Failure{}, Images: map[string]string{},
		Stopping: map[string]Stopping{}, Stopped: map[string]bool{}, BackOff: map[string]time.Time{},
		Given: map[string]cri.Resources{},
	}
}

// Begin records that an action is carried out.
func (m *Memory) Begin(a Action) {
	switch a := a.(type) {
	case Cancel:
		return
	case ReportBackOff:
		m.BackOff[a.Name] = a.Until
		return
	case MountVolumes:
		m.Stale = false // the action sees the newest metadata
	case RunPreStop:
		m.Stopping[a.ID] = a.Begun
	case StopContainer:
		m.Stopping[a.ID] = a.Begun
	}
	m.InFlight[Slot(a)] = a
}

// Succeed records that an action is done.
func (m *Memory) Succeed(a Action) {
	m.end(a)
	delete(m.Failures, Slot(a))
	switch a := a.(type) {
	case MountVolumes:
		m.Mounted = true
	case RunPreStop:
		s := m.Stopping[a.ID]
		s.HookDone = true
		m.Stopping[a.ID] = s
	case RemoveContainer:
		delete(m.Stopping, a.ID)
		delete(m.Given, a.ID)
	case StopSandbox:
		m.Stopped[a.ID] = true
	case GrowCgroup:
		m.Grown = a.Generation
	case CheckMemory:
		m.Checked = a.Generation
	case ResizeContainer:
		m.Given[a.ID] = a.Resources // the runtime may report other numbers
	case ShrinkCgroup:
		m.Sized = a.Generation
	case CleanUp:
		m.Cleaned = true
	case Purge:
		m.Purged = true
	case DeletePod:
		m.Deleted = true
	}
}

// Fail records that an action has failed.
func (m *Memory) Fail(a Action, f Failure) {
	m.GiveUp(a)
	m.Failures[Slot(a)] = f
}

// GiveUp records that an action was cancelled.
func (m *Memory) GiveUp(a Action) {
	m.end(a)
	if _, ok := a.(MountVolumes); ok {
		m.Stale = true
	}
}

func (m *Memory) end(a Action) {
	delete(m.InFlight, Slot(a))
	if start, ok := a.(StartContainer); ok {
		delete(m.Images, start.Name) // the next start asks for the image again
	}
}

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
