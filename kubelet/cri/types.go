package cri

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Pod are the sandboxes and containers of one Pod in the runtime.
type Pod struct {
	UID types.UID
	// Sandboxes and Containers are sorted, the newest first.
	Sandboxes  []Sandbox
	Containers []Container
}

// Sandbox is one PodSandbox.
type Sandbox struct {
	ID              string
	Name, Namespace string
	Attempt         uint32
	Ready           bool
	CreatedAt       time.Time
	// IPs of the sandbox, the primary one first; empty in the host's network.
	IPs []string
	// Handler is the runtime handler, "" for the default one.
	Handler string
	// HostNetwork is set if the sandbox is in the host's network.
	HostNetwork bool
}

// ContainerState is the state of a container.
type ContainerState string

// The states of a container.
const (
	Created ContainerState = "created"
	Running ContainerState = "running"
	Exited  ContainerState = "exited"
	// Unknown means that the runtime has lost the container, which may still run.
	Unknown ContainerState = "unknown"
)

// Container is one instance of a container.
type Container struct {
	ID, Name, SandboxID string
	Attempt             uint32
	State               ContainerState

	CreatedAt, StartedAt, FinishedAt time.Time

	ExitCode int32
	// Reason and Message of the end; the message includes the termination message.
	Reason, Message string

	// Image as the runtime names it, ImageID its digest.
	Image, ImageID string
	LogPath        string
	User           *v1.LinuxContainerUser
	// Resources are the present ones, as the runtime reports them; nil if it does not.
	Resources *Resources

	// Labels and Annotations that the container was created with.
	Labels, Annotations map[string]string
}

// Resources are the limits of a container that can change while it runs. The runtime ignores zeros.
type Resources struct {
	// CPUShares are cpu.shares; CPUQuota is in microseconds per CPUPeriod, -1 for no limit.
	CPUShares, CPUQuota, CPUPeriod int64
	// Memory limit in bytes.
	Memory int64
}

// Satisfies reports whether a container with r has the wanted resources.
func (r Resources) Satisfies(wanted Resources) bool {
	return r.CPUShares == wanted.CPUShares &&
		(wanted.CPUQuota == 0 || r.CPUQuota == wanted.CPUQuota && r.CPUPeriod == wanted.CPUPeriod) &&
		(wanted.Memory == 0 || r.Memory == wanted.Memory)
}

// Alive reports whether a process of the container may run.
func (c Container) Alive() bool { return c.State == Running || c.State == Unknown }

// NewestSandbox returns the newest sandbox, an empty one if there is none.
func (p Pod) NewestSandbox() Sandbox {
	if len(p.Sandboxes) == 0 {
		return Sandbox{}
	}
	return p.Sandboxes[0]
}

// Find returns the newest container that matches, and whether there is one.
func (p Pod) Find(matches func(Container) bool) (Container, bool) {
	if i := slices.IndexFunc(p.Containers, matches); i >= 0 {
		return p.Containers[i], true
	}
	return Container{}, false
}

// Probed is what the probes of one instance of a container have found.
type Probed struct {
	ContainerID    string
	Started, Ready bool   // the startup and the readiness probe succeed
	Failed         string // the probe that wants a restart, "startup" or "liveness"; "" for none
	// TerminationGracePeriodSeconds of the failed probe; nil if the Pod's applies.
	TerminationGracePeriodSeconds *int64
}
