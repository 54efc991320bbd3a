package images

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	dockerref "github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"k8s.io/kubernetes/pkg/kubelet/events"
	"k8s.io/utils/lru"
)

// Reasons of an Error, which are those of a waiting container.
const (
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImagePullBackOff  = "ImagePullBackOff"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonInvalidImageName  = "InvalidImageName"
	ReasonImageInspectError = "ImageInspectError"
)

// Secrets reads pull secrets. volumes.Manager is one.
type Secrets interface {
	// Secret returns a shared object that must not be changed; a missing one is a NotFound API
	// error.
	Secret(ctx context.Context, namespace, name string) (*v1.Secret, error)
}

// Config of a Manager.
type Config struct {
	Images  runtimeapi.ImageServiceClient
	Secrets Secrets
	// Access decides which Pods may use an image that is present; all if nil.
	Access *Access
	// Pulled is called after a pull, and must not block. May be nil.
	Pulled func()
}

// Error is why a container has no image yet.
type Error struct {
	// Reason and Message of the waiting container.
	Reason, Message string
	// RetryAt is when to call Ensure again; zero if only a change of the Pod helps.
	RetryAt time.Time
	Err     error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Recorder records an Event about the container that needs the image.
type Recorder = func(eventtype, reason, message string)

// Manager pulls images. Its methods may be called concurrently.
type Manager struct {
	cfg Config
	// inspected are images by ID. An ID identifies content: the user of the image does not change.
	inspected *lru.Cache

	mu      sync.Mutex
	pulling map[string]*pullLock
	backoff map[backoffKey]failure
}

// New returns a Manager.
func New(cfg Config) *Manager {
	return &Manager{
		cfg: cfg, inspected: lru.New(1000), pulling: map[string]*pullLock{}, backoff: map[backoffKey]failure{},
	}
}

// request is the image that a container needs, its own or that of a volume.
type request struct {
	pod     *v1.Pod
	image   string // as in the Pod's spec
	name    string // with a tag or a digest
	policy  v1.PullPolicy
	sandbox *runtimeapi.PodSandboxConfig
	record  Recorder

	// See Manager.credentials.
	found   []credentialprovider.TrackedAuthConfig
	findErr error
	read    bool
}

func (r *request) spec() *runtimeapi.ImageSpec {
	return &runtimeapi.ImageSpec{Image: r.name, UserSpecifiedImage: r.image, Annotations: r.pod.Annotations}
}

// Ensure makes the image of c present according to its pull policy and returns the ID to create the
// container from. It blocks during a pull; pulls of the same image run one after the other, others
// in parallel. rec records Events about the container. Errors are *Error, or of ctx.
func (m *Manager) Ensure(
	ctx context.Context, pod *v1.Pod, c *v1.Container, sandbox *runtimeapi.PodSandboxConfig, rec Recorder,
) (ref string, err error) {
	return m.ensure(ctx, &request{pod: pod, image: c.Image, policy: c.ImagePullPolicy, sandbox: sandbox, record: rec})
}

// EnsureVolume is Ensure for the image of a volume.
func (m *Manager) EnsureVolume(
	ctx context.Context, pod *v1.Pod, vol *v1.ImageVolumeSource, sandbox *runtimeapi.PodSandboxConfig, rec Recorder,
) (ref string, err error) {
	return m.ensure(ctx, &request{
		pod: pod, image: vol.Reference, policy: vol.PullPolicy, sandbox: sandbox, record: rec,
	})
}

func (m *Manager) ensure(ctx context.Context, r *request) (string, error) {
	ref, err := m.get(ctx, r)
	if e, ok := errors.AsType[*Error](err); ok {
		r.record(v1.EventTypeWarning, events.FailedToPullImage, "Error: "+e.Reason)
	}
	return ref, err
}

// inspect gets an image from the runtime, nil if it has none.
func (m *Manager) inspect(ctx context.Context, spec *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	resp, err := m.cfg.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil || resp.GetImage() == nil {
		return nil, err
	}
	m.inspected.Add(resp.Image.Id, resp.Image)
	return resp.Image, nil
}

// User returns the user of an image: uid if it is numeric, else the name. ref comes from Ensure,
// which has inspected the image.
func (m *Manager) User(ctx context.Context, ref string) (uid *int64, name string, err error) {
	known, _ := m.inspected.Get(ref)
	image, ok := known.(*runtimeapi.Image)
	if !ok {
		image, err = m.inspect(ctx, &runtimeapi.ImageSpec{Image: ref})
	}
	if err != nil {
		return nil, "", fmt.Errorf("inspecting image %q: %w", ref, err)
	}
	if image == nil {
		return nil, "", fmt.Errorf("inspecting image %q: it was removed in the meantime", ref)
	}
	if image.Uid != nil {
		return &image.Uid.Value, image.Username, nil
	}
	return nil, image.Username, nil
}

// withTag adds the tag latest to a name that has neither tag nor digest.
func withTag(image string) (string, error) {
	named, err := dockerref.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image reference %q: %w", image, err)
	}
	if dockerref.IsNameOnly(named) {
		image += ":latest"
	}
	return image, nil
}
