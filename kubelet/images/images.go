package images

import (
	"context"
	"errors"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Reasons of an Error; a container waits with them.
const (
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImagePullBackOff  = "ImagePullBackOff"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonInvalidImageName  = "InvalidImageName"
	ReasonImageInspectError = "ImageInspectError"
)

// Secrets reads pull secrets. volumes.Manager is one.
type Secrets interface {
	// Secret returns a shared object that must not be changed; a missing one is a NotFound API error.
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Config of a Manager.
type Config struct {
	Images  runtimeapi.ImageServiceClient
	Secrets Secrets
	// Now is the clock; time.Now if nil.
	Now func() time.Time
}

// Error says why a container has no image yet.
type Error struct {
	// Reason the container waits with, Message for its status.
	Reason, Message string
	// RetryAt is when to call Ensure again; zero if only a change of the Pod helps.
	RetryAt time.Time
	Err     error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Manager pulls images.
type Manager struct{ cfg Config }

// New returns a Manager.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Ensure makes the image of c present as its pull policy demands and returns
// its ID, which is what the container is to be created from. It blocks while it
// pulls; pulls of the same image wait for one another, others run in parallel.
// rec records Events about the container. Errors are *Error.
func (m *Manager) Ensure(ctx context.Context, pod *v1.Pod, c *v1.Container, sandbox *runtimeapi.PodSandboxConfig, rec func(eventtype, reason, msg string)) (ref string, err error) {
	return "", errors.New("being written")
}

// User returns the user that the image runs as: uid if it is numeric, else the
// name. ref comes from Ensure, which has remembered the answer.
func (m *Manager) User(ctx context.Context, ref string) (uid *int64, name string, err error) {
	return nil, "", errors.New("being written")
}
