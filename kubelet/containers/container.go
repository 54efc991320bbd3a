package containers

import (
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"flyball.dev/kubelet/volumes"
)

// Reasons that a container waits with.
const (
	ReasonCreateContainerConfigError = "CreateContainerConfigError"
	ReasonCreateContainerError       = "CreateContainerError"
)

// Error says why a container cannot be configured, in the words of the Pod's status.
type Error struct {
	Reason, Message string
	Err             error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ImageUser is the user that an image names, from CRI's ImageStatus.
type ImageUser struct {
	UID  *int64
	Name string
}

// Input is everything that a container's config depends on.
type Input struct {
	Node Node
	Pod  *v1.Pod
	// Container of any kind. An ephemeral container is passed as
	// v1.Container(ec.EphemeralContainerCommon).
	Container *v1.Container
	// TargetID is the container ID whose PID namespace an ephemeral container joins, if any.
	TargetID string
	Attempt  uint32
	ImageRef string
	// ImageUser matters for runAsNonRoot and for containers that name no user.
	ImageUser ImageUser
	// Env from Environment.
	Env    []*runtimeapi.KeyValue
	PodIPs []string
	// Volumes from volumes.Manager.Mount, Files from volumes.Manager.Prepare.
	Volumes map[string]volumes.Mounted
	Files   volumes.Files
}

// Files describes what must lie on the host before the container is created. It
// needs Node, Pod, Container, Attempt, Env and PodIPs of the Input.
func Files(in Input) (volumes.FilesSpec, error) { return volumes.FilesSpec{}, nil }

// Container renders the config of one container.
func Container(in Input) (*runtimeapi.ContainerConfig, error) { return nil, nil }

// Resources renders the limits of one container, also for an update in place.
func Resources(node Node, pod *v1.Pod, c *v1.Container) *runtimeapi.LinuxContainerResources {
	return nil
}
