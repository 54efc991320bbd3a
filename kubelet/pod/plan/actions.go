package plan

import (
	"time"

	"flyball.dev/kubelet/cri"
)

// Action is one step of a Plan. At most one action is under way per slot; one
// that is planned while another holds its slot replaces that one.
type Action interface {
	// Slot that the action occupies.
	Slot() string
	// Why in words.
	Why() string
}

// Reason says in words why an action is taken.
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

// RemoveContainer removes an instance that is not needed any more.
type RemoveContainer struct {
	ID, Name string
	Reason
}

// GrowCgroup raises the limits of the Pod's cgroup to those of a generation of the
// Pod, and lowers none.
type GrowCgroup struct {
	Generation int64
	Reason
}

// CheckMemory fails if the memory limit of the Pod, or of one of the containers, is
// to fall below what is used.
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

// ReportBackOff tells the user that a container waits before it restarts.
type ReportBackOff struct {
	Name  string
	Until time.Time
	Reason
}

// Cancel gives up what is under way in a slot.
type Cancel struct {
	InSlot string
	Reason
}

// DeletePod removes the Pod from the API server, which only waits for us.
type DeletePod struct{ Reason }

// Slot implements Action.
func (MountVolumes) Slot() string { return slotNode }

// Slot implements Action.
func (CleanUp) Slot() string { return slotNode }

// Slot implements Action.
func (Purge) Slot() string { return slotNode }

// Slot implements Action.
func (CreateSandbox) Slot() string { return slotSandbox }

// Slot implements Action.
func (a StopSandbox) Slot() string { return slotStop(a.ID) }

// Slot implements Action.
func (a RemoveSandbox) Slot() string { return slotStop(a.ID) }

// Slot implements Action.
func (a PullImage) Slot() string { return slotImage(a.Name) }

// Slot implements Action.
func (a StartContainer) Slot() string { return slotStart(a.Name) }

// Slot implements Action.
func (a RunPreStop) Slot() string { return slotStop(a.ID) }

// Slot implements Action.
func (a StopContainer) Slot() string { return slotStop(a.ID) }

// Slot implements Action.
func (a RemoveContainer) Slot() string { return slotStop(a.ID) }

// Slot implements Action.
func (GrowCgroup) Slot() string { return SlotResize }

// Slot implements Action.
func (CheckMemory) Slot() string { return SlotResize }

// Slot implements Action.
func (ResizeContainer) Slot() string { return SlotResize }

// Slot implements Action.
func (ShrinkCgroup) Slot() string { return SlotResize }

// Slot implements Action. It is carried out at once and holds none.
func (a ReportBackOff) Slot() string { return "" }

// Slot implements Action. It is carried out at once and holds none.
func (a Cancel) Slot() string { return "" }

// Slot implements Action.
func (DeletePod) Slot() string { return slotAPI }
