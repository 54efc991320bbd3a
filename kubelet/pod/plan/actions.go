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

// The actions.
type (
	// MountVolumes mounts the volumes of the Pod.
	MountVolumes struct{ Reason }
	// CleanUp unmounts the volumes and removes the cgroup.
	CleanUp struct{ Reason }
	// Purge removes the logs of a Pod that the API server no longer knows.
	Purge struct{ Reason }
	// CreateSandbox creates and starts the sandbox.
	CreateSandbox struct {
		Attempt  uint32
		Replaces bool // an earlier sandbox was lost
		Reason
	}
	// StopSandbox stops a sandbox and gives its network back.
	StopSandbox struct {
		ID string
		Reason
	}
	// RemoveSandbox removes a sandbox and the containers that are left in it.
	RemoveSandbox struct {
		ID string
		Reason
	}
	// PullImage makes the image of a container present, as its pull policy demands.
	PullImage struct {
		Name string
		Reason
	}
	// StartContainer creates and starts a container and runs its postStart hook.
	StartContainer struct {
		Name, SandboxID, ImageRef string
		Attempt                   uint32
		BackOff                   int // counts the restarts in a row, see backOff
		AllRestarts               int // counts how often all containers have restarted, see restartAll
		Reason
	}
	// RunPreStop runs the preStop hook of a container, until the deadline at most.
	RunPreStop struct {
		ID, Name string
		Deadline time.Time
		Begun    Stopping // what the worker remembers about the end of the container
		Reason
	}
	// StopContainer asks a container to end, and kills it at the deadline.
	StopContainer struct {
		ID, Name string
		Deadline time.Time
		Begun    Stopping
		Reason
	}
	// RemoveContainer removes an instance that nothing needs any more.
	RemoveContainer struct {
		ID, Name string
		Reason
	}
	// GrowCgroup raises the limits of the Pod's cgroup to those of a generation of the Pod, and
	// lowers none.
	GrowCgroup struct {
		Generation int64
		Reason
	}
	// CheckMemory fails if a new memory limit of the Pod or of a container is below the present
	// use.
	CheckMemory struct {
		Generation int64
		Containers []ContainerMemory
		Reason
	}
	// ContainerMemory is a memory limit that a container is to get, in bytes.
	ContainerMemory struct {
		Name, ID string
		Limit    int64
	}
	// ResizeContainer changes the resources of a running container.
	ResizeContainer struct {
		ID, Name  string
		Resources cri.Resources
		Reason
	}
	// ShrinkCgroup sets the limits of the Pod's cgroup to those of a generation of the Pod.
	ShrinkCgroup struct {
		Generation int64
		Reason
	}
	// ReportBackOff records that a container waits before it restarts.
	ReportBackOff struct {
		Name  string
		Until time.Time
		Reason
	}
	// Cancel cancels the action in a slot.
	Cancel struct {
		InSlot string
		Reason
	}
	// DeletePod completes the deletion of the Pod, or of a mirror Pod, at the API server.
	DeletePod struct{ Reason }
)

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
