package images

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	dockerref "github.com/distribution/reference"
	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
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

func (m *Manager) get(ctx context.Context, r *request) (_ string, err error) {
	if r.name, err = withTag(r.image); err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: %v", r.image, err)
		r.record(v1.EventTypeWarning, events.FailedToInspectImage, msg)
		return "", &Error{Reason: ReasonInvalidImageName, Message: msg, Err: err}
	}
	if r.policy == "" { // the API server has set it, except in tests and old objects
		r.policy = v1.PullIfNotPresent
		if strings.HasSuffix(r.name, ":latest") {
			r.policy = v1.PullAlways
		}
	}
	if r.policy != v1.PullAlways {
		if ref, err := m.present(ctx, r); err != nil || ref != "" {
			return ref, err
		}
	}
	if r.policy == v1.PullNever {
		// The same message for an image that is present and not for this Pod, so that it learns
		// nothing about others.
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.image)
		r.record(v1.EventTypeWarning, events.ErrImageNeverPullPolicy, msg)
		// The image may be imported.
		return "", &Error{Reason: ReasonErrImageNeverPull, Message: msg, RetryAt: time.Now().Add(initialBackoff)}
	}
	key := backoffKey{r.pod.UID, r.name}
	if e := m.inBackoff(key); e != nil {
		msg := fmt.Sprintf("Back-off pulling image %q", r.image)
		r.record(v1.EventTypeNormal, events.BackOffPullImage, msg)
		msg += ": " + e.Reason + ": " + e.Message
		return "", &Error{Reason: ReasonImagePullBackOff, Message: msg, RetryAt: e.RetryAt, Err: e.Err}
	}
	ref, err := m.pull(ctx, r)
	if err == nil {
		m.resetBackoff(key)
		return ref, nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("pulling image %q: %w", r.image, context.Cause(ctx))
	}
	r.record(v1.EventTypeWarning, events.FailedToPullImage, fmt.Sprintf("Failed to pull image %q: %v", r.image, err))
	return "", m.backOff(key, pullError(r.image, err))
}

// present returns the ID of the image if the runtime has it and the Pod may use it.
func (m *Manager) present(ctx context.Context, r *request) (string, error) {
	image, err := m.inspect(ctx, r.spec())
	if err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("inspecting image %q: %w", r.image, context.Cause(ctx))
		}
		msg := fmt.Sprintf("Failed to inspect image %q: %v", r.image, err)
		r.record(v1.EventTypeWarning, events.FailedToInspectImage, msg)
		retry := time.Now().Add(initialBackoff)
		return "", &Error{Reason: ReasonImageInspectError, Message: msg, RetryAt: retry, Err: err}
	}
	if !m.usable(ctx, r, image) {
		return "", nil
	}
	return image.Id, nil
}

// usable reports whether the Pod may use the image without a pull, and records an Event if so.
func (m *Manager) usable(ctx context.Context, r *request, image *runtimeapi.Image) bool {
	sources := func() ([]kubeletconfig.ImagePullSecret, *kubeletconfig.ImagePullServiceAccount, error) {
		found, err := m.credentials(ctx, r)
		return lo.FlatMap(found, func(c credentialprovider.TrackedAuthConfig, _ int) []kubeletconfig.ImagePullSecret {
			return recorded(&c).KubernetesSecrets
		}), nil, err
	}
	if image.GetId() == "" || !m.cfg.Access.allows(ctx, r.image, r.name, image, sources) {
		return false
	}
	r.record(v1.EventTypeNormal, events.PulledImage, fmt.Sprintf("Container image %q already present on machine", r.image))
	return true
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
	_, tagged := named.(dockerref.Tagged)
	_, digested := named.(dockerref.Digested)
	if !tagged && !digested {
		return image + ":latest", nil
	}
	return image, nil
}
