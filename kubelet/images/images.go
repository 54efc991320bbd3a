package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	dockerref "github.com/distribution/reference"
	"github.com/samber/lo"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/kubernetes/pkg/credentialprovider"
)

// Reasons of an Error; a container waits with them.
const (
	ReasonErrImagePull      = "ErrImagePull"
	ReasonImagePullBackOff  = "ImagePullBackOff"
	ReasonErrImageNeverPull = "ErrImageNeverPull"
	ReasonInvalidImageName  = "InvalidImageName"
	ReasonImageInspectError = "ImageInspectError"
)

// Reasons of Events.
const (
	eventPulling       = "Pulling"
	eventPulled        = "Pulled"
	eventFailed        = "Failed"
	eventBackOff       = "BackOff"
	eventInspectFailed = "InspectFailed"
	eventNeverPull     = "ErrImageNeverPull"
	eventNoSecret      = "FailedToRetrieveImagePullSecret"
)

// inspectTimeout is how long a pull that has ended waits for the runtime to say what is there now.
const inspectTimeout = 10 * time.Second

// cancelTime is how long the runtime is given to end a pull that was cancelled: the call ends at
// once on this side, while the image may be about to get its name on the other.
const cancelTime = 300 * time.Millisecond

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
	// Access says which Pods may use an image that is present; all if nil.
	Access *Access
	// Pulled is called after a pull, and must not block. May be nil.
	Pulled func()
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

// Recorder records an Event about the container that needs the image.
type Recorder = func(eventtype, reason, message string)

// Manager pulls images. Its methods may be called concurrently.
type Manager struct {
	cfg Config

	mu      sync.Mutex
	pulling map[string]*turn
	backoff map[backoffKey]failure
	users   map[string]user
}

// turn makes those who want the same image wait for one another. Who has put its
// token into taken has the turn.
type turn struct {
	taken   chan struct{} // capacity 1
	waiting int
}

type user struct {
	uid  *int64
	name string
}

// New returns a Manager.
func New(cfg Config) *Manager {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Manager{cfg: cfg, pulling: map[string]*turn{}, backoff: map[backoffKey]failure{}, users: map[string]user{}}
}

// Ensure makes the image of c present as its pull policy demands and returns
// its ID, which is what the container is to be created from. It blocks while it
// pulls; pulls of the same image wait for one another, others run in parallel.
// rec records Events about the container. Errors are *Error, or of ctx.
func (m *Manager) Ensure(
	ctx context.Context, pod *v1.Pod, c *v1.Container, sandbox *runtimeapi.PodSandboxConfig, rec Recorder,
) (ref string, err error) {
	policy := pullPolicy(c.ImagePullPolicy, c.Image)
	return m.ensure(ctx, request{pod: pod, image: c.Image, policy: policy, sandbox: sandbox, record: rec})
}

// EnsureVolume is Ensure for the image of a volume that a container needs.
func (m *Manager) EnsureVolume(
	ctx context.Context, pod *v1.Pod, vol *v1.ImageVolumeSource, sandbox *runtimeapi.PodSandboxConfig, rec Recorder,
) (ref string, err error) {
	policy := pullPolicy(vol.PullPolicy, vol.Reference)
	return m.ensure(ctx, request{pod: pod, image: vol.Reference, policy: policy, sandbox: sandbox, record: rec})
}

// request is a container's wish for an image, its own or that of a volume.
type request struct {
	pod     *v1.Pod
	image   string // as the user wrote it
	policy  v1.PullPolicy
	sandbox *runtimeapi.PodSandboxConfig
	record  Recorder
	// credentials are those that the Pod has for the image, looked up once and no earlier than
	// needed.
	credentials func() ([]credentialprovider.TrackedAuthConfig, error)
}

func (r request) spec(name string) *runtimeapi.ImageSpec {
	return &runtimeapi.ImageSpec{Image: name, UserSpecifiedImage: r.image, Annotations: r.pod.Annotations}
}

func (m *Manager) ensure(ctx context.Context, r request) (string, error) {
	ref, err := m.get(ctx, r)
	if e, ok := errors.AsType[*Error](err); ok {
		r.record(v1.EventTypeWarning, eventFailed, "Error: "+e.Reason)
	}
	return ref, err
}

func (m *Manager) get(ctx context.Context, r request) (string, error) {
	name, err := withTag(r.image)
	if err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: %v", r.image, err)
		r.record(v1.EventTypeWarning, eventInspectFailed, msg)
		return "", &Error{Reason: ReasonInvalidImageName, Message: msg, Err: err}
	}
	r.credentials = sync.OnceValues(func() ([]credentialprovider.TrackedAuthConfig, error) {
		return m.credentials(ctx, r, name)
	})
	if r.policy != v1.PullAlways {
		if ref, err := m.present(ctx, r, name); err != nil || ref != "" {
			return ref, err
		}
	}
	if r.policy == v1.PullNever {
		// The same for an image that is present and not for this Pod, which learns nothing of
		// others.
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", r.image)
		r.record(v1.EventTypeWarning, eventNeverPull, msg)
		// Somebody may import the image.
		return "", &Error{Reason: ReasonErrImageNeverPull, Message: msg, RetryAt: m.cfg.Now().Add(initialBackoff)}
	}
	key := backoffKey{r.pod.UID, name}
	if f, waiting := m.waiting(key); waiting {
		msg := fmt.Sprintf("Back-off pulling image %q", r.image)
		r.record(v1.EventTypeNormal, eventBackOff, msg)
		return "", &Error{Reason: ReasonImagePullBackOff, Message: msg + ": " + f.message, RetryAt: f.until, Err: f.err}
	}
	ref, err := m.pull(ctx, r, name)
	if err == nil {
		m.succeeded(key)
		return ref, nil
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("pulling image %q: %w", r.image, context.Cause(ctx))
	}
	r.record(v1.EventTypeWarning, eventFailed, fmt.Sprintf("Failed to pull image %q: %v", r.image, err))
	e := pullError(r.image, err)
	e.RetryAt = m.failed(key, e)
	return "", e
}

// present returns the ID of the image if the runtime has it and the Pod may use it.
func (m *Manager) present(ctx context.Context, r request, name string) (string, error) {
	image, err := m.inspect(ctx, r.spec(name))
	if err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("inspecting image %q: %w", r.image, context.Cause(ctx))
		}
		msg := fmt.Sprintf("Failed to inspect image %q: %v", r.image, err)
		r.record(v1.EventTypeWarning, eventInspectFailed, msg)
		return "", &Error{Reason: ReasonImageInspectError, Message: msg, RetryAt: m.cfg.Now().Add(initialBackoff), Err: err}
	}
	if image.GetId() == "" || !m.cfg.Access.allows(ctx, r, name, image) {
		return "", nil
	}
	r.record(v1.EventTypeNormal, eventPulled, fmt.Sprintf("Container image %q already present on machine", r.image))
	return image.Id, nil
}

// pull gets the image from its registry, with the credentials that the Pod has for it.
func (m *Manager) pull(ctx context.Context, r request, name string) (string, error) {
	asked := m.cfg.Now()
	done, err := m.waitTurn(ctx, name)
	if err != nil {
		return "", err
	}
	defer done()
	if r.policy != v1.PullAlways {
		// Whoever had the turn before us may have pulled it.
		image, err := m.inspect(ctx, r.spec(name))
		if err == nil && image.GetId() != "" && m.cfg.Access.allows(ctx, r, name, image) {
			r.record(v1.EventTypeNormal, eventPulled, fmt.Sprintf("Container image %q already present on machine", r.image))
			return image.Id, nil
		}
	}
	credentials, err := r.credentials()
	if err != nil {
		return "", err
	}
	r.record(v1.EventTypeNormal, eventPulling, fmt.Sprintf("Pulling image %q", r.image))
	began := m.cfg.Now()
	ref, image, err := m.pullRecorded(ctx, r, name, credentials)
	if err != nil {
		return "", err
	}
	if m.cfg.Pulled != nil {
		m.cfg.Pulled()
	}
	ended := m.cfg.Now()
	r.record(v1.EventTypeNormal, eventPulled, fmt.Sprintf(
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", r.image,
		ended.Sub(began).Truncate(time.Millisecond), ended.Sub(asked).Truncate(time.Millisecond), image.GetSize()))
	return ref, nil
}

// pullRecorded pulls, and records for whom. It returns what the runtime calls the
// image, and the image, nil if the runtime does not show it.
//
// A pull that fails may have stored the image all the same, which would be anybody's without a
// record: the answer of a cancelled one is lost, and the disk may be full after the image was
// named. One that was there before, imported or preloaded, stays for all.
func (m *Manager) pullRecorded(
	ctx context.Context, r request, name string, credentials []credentialprovider.TrackedAuthConfig,
) (string, *runtimeapi.Image, error) {
	before, err := m.tracked(ctx, r, name)
	if err != nil {
		return "", nil, fmt.Errorf("inspecting the image before it is pulled: %w", err)
	}
	if err := m.cfg.Access.pulling(ctx, name); err != nil {
		return "", nil, err
	}
	ref, with, err := m.pullWith(ctx, r, name, credentials)
	// Also the pull of a deleted Pod is recorded.
	ask, cancel := context.WithTimeout(context.WithoutCancel(ctx), inspectTimeout)
	defer cancel()
	if err != nil {
		if ctx.Err() != nil && m.cfg.Access != nil {
			time.Sleep(cancelTime)
		}
		after, inspectErr := m.tracked(ask, r, name)
		switch {
		case unresolved(err) || inspectErr == nil && after == before:
			m.cfg.Access.failed(ctx, name, "")
		case inspectErr != nil:
			m.cfg.Access.unknown()
		default:
			m.cfg.Access.failed(ctx, name, after)
		}
		return "", nil, err
	}
	// The runtime may answer with a digest, and the record needs the ID. The size is only told, and
	// User asks again.
	image, _ := m.inspect(ask, &runtimeapi.ImageSpec{Image: ref})
	switch {
	case image.GetId() != "":
		m.cfg.Access.pulled(ctx, name, image.GetId(), with)
	case strings.HasPrefix(ref, "sha256:"): // an ID of containerd's
		m.cfg.Access.pulled(ctx, name, ref, with)
	default:
		m.cfg.Access.unknown()
	}
	return ref, image, nil
}

// tracked returns the ID of the image that has the name now, "" if there is none or no records are
// kept.
func (m *Manager) tracked(ctx context.Context, r request, name string) (string, error) {
	if m.cfg.Access == nil {
		return "", nil
	}
	image, err := m.inspect(ctx, r.spec(name))
	return image.GetId(), err
}

// several is what errors.Join returns.
type several interface {
	error
	Unwrap() []error
}

// unresolved says whether all attempts of a pull failed before the runtime knew what to store:
// there is no such image, or nobody answers. One that is there afterwards was imported meanwhile,
// as it has to be on a node that reaches no registry. The texts are containerd's.
func unresolved(err error) bool {
	attempts := []error{err}
	if joined, ok := errors.AsType[several](err); ok {
		attempts = joined.Unwrap()
	}
	return !slices.ContainsFunc(attempts, func(err error) bool {
		text := status.Convert(err).Message()
		return !strings.Contains(text, "failed to resolve reference") &&
			!strings.Contains(text, "failed to resolve image")
	})
}

// pullWith tries one credential after the other: several may match a registry.
// It returns the one that was accepted, nil if there are none.
func (m *Manager) pullWith(
	ctx context.Context, r request, name string, credentials []credentialprovider.TrackedAuthConfig,
) (string, *credentialprovider.TrackedAuthConfig, error) {
	attempts := []*credentialprovider.TrackedAuthConfig{nil}
	if len(credentials) > 0 {
		attempts = lo.ToSlicePtr(credentials)
	}
	var errs []error
	for _, with := range attempts {
		resp, err := m.cfg.Images.PullImage(ctx, &runtimeapi.PullImageRequest{
			Image: r.spec(name), Auth: authConfig(with), SandboxConfig: r.sandbox,
		})
		if err == nil {
			return resp.ImageRef, with, nil
		}
		errs = append(errs, err)
	}
	if len(errs) == 1 {
		return "", nil, errs[0] // with its status, see pullError
	}
	return "", nil, errors.Join(errs...)
}

// inspect asks the runtime for an image, nil if it has none, and remembers its user.
func (m *Manager) inspect(ctx context.Context, spec *runtimeapi.ImageSpec) (*runtimeapi.Image, error) {
	resp, err := m.cfg.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: spec})
	if err != nil || resp.GetImage() == nil {
		return nil, err
	}
	u := user{name: resp.Image.Username}
	if resp.Image.Uid != nil {
		u.uid = &resp.Image.Uid.Value
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	// An ID names a content, so that an entry never gets old; only their number is bounded.
	if len(m.users) > 1000 {
		clear(m.users)
	}
	m.users[resp.Image.Id] = u
	return resp.Image, nil
}

// User returns the user that the image runs as: uid if it is numeric, else the
// name. ref comes from Ensure, which has remembered the answer.
func (m *Manager) User(ctx context.Context, ref string) (uid *int64, name string, err error) {
	m.mu.Lock()
	u, ok := m.users[ref]
	m.mu.Unlock()
	if ok {
		return u.uid, u.name, nil
	}
	image, err := m.inspect(ctx, &runtimeapi.ImageSpec{Image: ref})
	if err != nil {
		return nil, "", fmt.Errorf("inspecting image %q: %w", ref, err)
	}
	if image == nil {
		return nil, "", fmt.Errorf("inspecting image %q: it was removed meanwhile", ref)
	}
	if image.Uid != nil {
		return &image.Uid.Value, image.Username, nil
	}
	return nil, image.Username, nil
}

// waitTurn returns when nobody else pulls the image; the caller calls done
// afterwards. A Pod that was deleted does not wait for the pull of another.
func (m *Manager) waitTurn(ctx context.Context, name string) (done func(), err error) {
	m.mu.Lock()
	t := m.pulling[name]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		m.pulling[name] = t
	}
	t.waiting++
	m.mu.Unlock()
	leave := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if t.waiting--; t.waiting == 0 {
			delete(m.pulling, name)
		}
	}
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
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

// pullPolicy is what the API server has defaulted already, except in tests and old objects.
func pullPolicy(policy v1.PullPolicy, image string) v1.PullPolicy {
	if policy != "" {
		return policy
	}
	if name, err := withTag(image); err == nil && strings.HasSuffix(name, ":latest") {
		return v1.PullAlways
	}
	return v1.PullIfNotPresent
}

// pullError gives the two failures that a runtime tells apart reasons of their own.
func pullError(image string, err error) *Error {
	text := status.Convert(err).Message()
	for known, because := range map[error]string{
		crierrors.ErrRegistryUnavailable:       "the registry is unavailable",
		crierrors.ErrSignatureValidationFailed: "the signature validation failed",
	} {
		if rest, ok := strings.CutPrefix(text, known.Error()); ok {
			msg := fmt.Sprintf("image pull failed for %s because %s%s", image, because, rest)
			return &Error{Reason: known.Error(), Message: msg, Err: err}
		}
	}
	return &Error{Reason: ReasonErrImagePull, Message: err.Error(), Err: err}
}
