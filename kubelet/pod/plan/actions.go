package plan

import (
	"time"

	"flyball.dev/kubelet/cri"
)

// Action is one step of a Plan. At most one action is under way in each Slot. An action that is
// planned while another one occupies its slot replaces that one.
type Action interface {
	// Why returns the reason in words.
	Why() string
}

// Reason says in plain words why an action is taken.
type Reason string

// Why returns the reason.
func (r Reason) Why() string { return string(r) }

// Slots.
const (
	slotNode    = "node"
	slotSandbox = "sandbox"
	slotAPI     = "api"
	SlotResize  = "resize"
)

func slotImage(name string) string { return "image/" + name }
func slotStart(name string) string { return "start/" + name }
func slotStop(id string) string    { return "stop/" + id }

// MountVolumes mounts the volumes of the Pod.
type MountVolumes struct{ Reason }

// CleanUp unmounts the volumes and removes the cgroup.
type CleanUp struct{ Reason }

// Purge removes the logs of a Pod that the API server no longer knows.
type Purge struct{ Reason }

// CreateSandbox creates and starts the sandbox.
type CreateSandbox struct {
	Attempt uint32
	// Replaces says that an earlier sandbox was lost.
	Replaces bool
	Reason
}

// StopSandbox stops a sandbox and gives its network back.
type StopSandbox struct {
	ID string
	Reason
}

// RemoveSandbox removes a sandbox and the containers that are left in it.
type RemoveSandbox struct {
	ID string
	Reason
}

// PullImage makes the image of a container present, as its pull policy demands.
type PullImage struct {
	Name string
	Reason
}

// StartContainer creates and starts a container and runs its postStart hook.
type StartContainer struct {
	Name      string
	Attempt   uint32
	SandboxID string
	ImageRef  string
	// BackOff counts the restarts in a row, see backOff.
	BackOff int
	// AllRestarts counts how often all containers have restarted, see restartAll.
	AllRestarts int
	Reason
}

// RunPreStop runs the preStop hook of a container, until the deadline at most.
type RunPreStop struct {
	ID, Name string
	Deadline time.Time
	// Begun is what the worker remembers about the end of the container.
	Begun Stopping
	Reason
}

// StopContainer asks a container to end, and kills it at the deadline.
type StopContainer struct {
	ID, Name string
	Deadline time.Time
	Begun    Stopping
	Reason
}

// RemoveContainer removes an instance that nothing needs any more.
type RemoveContainer struct {
	ID, Name string
	Reason
}

// GrowCgroup raises the limits of the Pod's cgroup to those of a generation of the Pod, and lowers
// none.
type GrowCgroup struct {
	Generation int64
	Reason
}

// CheckMemory fails if a new memory limit of the Pod or of a container is below the present use.
type CheckMemory struct {
	Generation int64
	Containers []ContainerMemory
	Reason
}

// ContainerMemory is a memory limit that a container is to get, in bytes.
type ContainerMemory struct {
	Name, ID string
	Limit    int64
}

// ResizeContainer changes the resources of a running container.
type ResizeContainer struct {
	ID, Name  string
	Resources cri.Resources
	Reason
}

// ShrinkCgroup sets the limits of the Pod's cgroup to those of a generation of the Pod.
type ShrinkCgroup struct {
	Generation int64
	Reason
}

// ReportBackOff records that a container waits before it restarts.
type ReportBackOff struct {
	Name  string
	Until time.Time
	Reason
}

// Cancel cancels the action in a slot.
type Cancel struct {
	InSlot string
	Reason
}

// DeletePod completes the deletion of the Pod, or of a mirror Pod, at the API server.
type DeletePod struct{ Reason }

// Slot that an action occupies while it is under way; "" if it is carried out at once.
func Slot(a Action) string {
	switch a := a.(type) {
	case MountVolumes, CleanUp, Purge:
		return slotNode
	case CreateSandbox:
		return slotSandbox
	case PullImage:
		return slotImage(a.Name)
	case StartContainer:
		return slotStart(a.Name)
	case RunPreStop:
		return slotStop(a.ID)
	case StopContainer:
		return slotStop(a.ID)
	case RemoveContainer:
		return slotStop(a.ID)
	case StopSandbox:
		return slotStop(a.ID)
	case RemoveSandbox:
		return slotStop(a.ID)
	case GrowCgroup, CheckMemory, ResizeContainer, ShrinkCgroup:
		return SlotResize
	case DeletePod:
		return slotAPI
	}
	return ""
}
