package volumes

import (
	"context"
	"errors"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Config of a Manager. All fields but Plugins are required; NodeName, Node and InUseChanged are not
// with NoFiles.
type Config struct {
	// RootDir is the kubelet's directory; volumes lie below RootDir/pods.
	RootDir string
	// Client with the identity of the node.
	Client kubernetes.Interface
	// NodeName of this node.
	NodeName string
	// NoFiles, for simulated nodes, only finds out whether volumes can be mounted.
	NoFiles bool
	// Plugins are kinds of volumes besides those of this package. May be nil.
	Plugins []Plugin
	// Allocatable of this node bounds volumes in memory and replaces missing limits in the downward
	// API.
	Allocatable func() v1.ResourceList
	// Node as last watched, nil if it was not seen yet. Volumes that are attached wait for its
	// status.
	Node func() *v1.Node
	// InUseChanged is called when VolumesInUse changed. It must not block.
	InUseChanged func()
	// Changed is called when an object that the Pod refers to has changed or appeared, so that the
	// Pod is reconciled without waiting for its back-off. It must not block.
	Changed func(types.UID)
	// Event records an Event about contents that cannot be refreshed, and refused certificates.
	Event func(pod *v1.Pod, eventtype, reason, message string)
}

// Mounted is one volume of a Pod, ready to be mounted into its containers.
type Mounted struct {
	// HostPath is the directory (for hostPath: a file of any type) on the host; empty for an Image.
	HostPath string
	// Device says that HostPath is a block device, for volumeDevices of containers.
	Device bool
	// Image says that the runtime mounts the image which the volume names.
	Image bool
	// ReadOnly forbids writing even if the container asks for it.
	ReadOnly bool
	// SELinuxRelabel says that the volume belongs to the Pod alone and may be relabelled.
	SELinuxRelabel bool
}

// Error says which volume could not be mounted, in the words of an Event.
type Error struct {
	Message string
	// Waiting, for something that usually takes a moment, such as an attachment, is not worth an
	// Event.
	Waiting bool
	Err     error
}

func (e *Error) Error() string { return e.Message }

// RefusedError is the cause of an Error when this node can never give the Pod its volume. The Pod
// fails, so that another one can take its place on another node.
type RefusedError struct {
	Reason, Message string // of the Pod's status
}

func (e *RefusedError) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Source reads ConfigMaps and Secrets of mounted Pods. *Manager is one.
type Source interface {
	// ConfigMap returns a shared object, which must not be changed. A missing one is a NotFound API
	// error.
	ConfigMap(ctx context.Context, namespace, name string) (*v1.ConfigMap, error)
	// Secret is the same for Secrets.
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

func mountError(volume string, err error) *Error {
	_, waiting := errors.AsType[WaitingError](err)
	message := fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", volume, err)
	return &Error{Message: message, Waiting: waiting, Err: err}
}
