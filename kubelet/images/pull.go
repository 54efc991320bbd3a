package images

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	dockerref "github.com/distribution/reference"
	"github.com/samber/lo"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	crierrors "k8s.io/cri-api/pkg/errors"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/credentialprovider"
	credentialsecrets "k8s.io/kubernetes/pkg/credentialprovider/secrets"
	"k8s.io/kubernetes/pkg/kubelet/events"
)

// inspectTimeout bounds the calls of the runtime after a pull that find out which image it stored.
const inspectTimeout = 10 * time.Second

// cancelTime is how long the runtime has to end a pull that was cancelled: the call returns at
// once, while the runtime may be about to name the image.
const cancelTime = 300 * time.Millisecond

// pull pulls the image from its registry, with the credentials that the Pod has for it.
func (m *Manager) pull(ctx context.Context, r *request) (string, error) {
	requested := time.Now()
	unlock, err := m.lockPull(ctx, r.name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if r.policy != v1.PullAlways {
		// An earlier holder of the lock may have pulled it.
		if image, err := m.inspect(ctx, r.spec()); err == nil && m.usable(ctx, r, image) {
			return image.Id, nil
		}
	}
	credentials, err := m.credentials(ctx, r)
	if err != nil {
		return "", err
	}
	r.record(v1.EventTypeNormal, events.PullingImage, fmt.Sprintf("Pulling image %q", r.image))
	began := time.Now()
	ref, image, err := m.pullRecorded(ctx, r, credentials)
	if err != nil {
		return "", err
	}
	if m.cfg.Pulled != nil {
		m.cfg.Pulled()
	}
	ended := time.Now()
	r.record(v1.EventTypeNormal, events.PulledImage, fmt.Sprintf(
		"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.", r.image,
		ended.Sub(began).Truncate(time.Millisecond), ended.Sub(requested).Truncate(time.Millisecond), image.GetSize()))
	return ref, nil
}

// pullRecorded pulls, and records the credentials. It returns the runtime's reference of the image,
// and the image, nil if the runtime does not return it.
//
// A pull that fails may have stored the image nevertheless, and without a record all Pods might use
// it: the answer of a cancelled pull is lost, and the disk may be full after the image was named.
// An image that was imported or preloaded before stays for all.
func (m *Manager) pullRecorded(
	ctx context.Context, r *request, credentials []credentialprovider.TrackedAuthConfig,
) (string, *runtimeapi.Image, error) {
	before, err := m.tracked(ctx, r)
	if err != nil {
		return "", nil, fmt.Errorf("inspecting the image before it is pulled: %w", err)
	}
	if err := m.cfg.Access.pulling(ctx, r.name); err != nil {
		return "", nil, err
	}
	ref, with, err := m.pullWith(ctx, r, credentials)
	// The pull of a deleted Pod is recorded as well.
	after, cancel := context.WithTimeout(context.WithoutCancel(ctx), inspectTimeout)
	defer cancel()
	if err != nil {
		if ctx.Err() != nil && m.cfg.Access != nil {
			time.Sleep(cancelTime)
		}
		left, inspectErr := m.tracked(after, r)
		switch {
		case unresolved(err) || inspectErr == nil && left == before:
			m.cfg.Access.failed(ctx, r.name, "")
		case inspectErr != nil:
			m.cfg.Access.unknown()
		default:
			m.cfg.Access.failed(ctx, r.name, left)
		}
		return "", nil, err
	}
	// The runtime may return a digest, and the record needs the ID. Without an answer, the Event
	// has no size, and User inspects again.
	image, _ := m.inspect(after, &runtimeapi.ImageSpec{Image: ref})
	if id := cmp.Or(image.GetId(), ref); image.GetId() != "" || strings.HasPrefix(ref, "sha256:") { // an ID of containerd's
		m.cfg.Access.pulled(ctx, r.name, id, with)
	} else {
		m.cfg.Access.unknown()
	}
	return ref, image, nil
}

// tracked returns the ID of the image that has the name now, "" if there is none or without
// records.
func (m *Manager) tracked(ctx context.Context, r *request) (string, error) {
	if m.cfg.Access == nil {
		return "", nil
	}
	image, err := m.inspect(ctx, r.spec())
	return image.GetId(), err
}

// unresolved reports whether all attempts of a pull failed before the runtime had the image's
// digest: there is no such image, or no registry answers. An image that exists afterwards was
// imported in the meantime, as on nodes that reach no registry. The texts are containerd's.
func unresolved(err error) bool {
	attempts := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		attempts = joined.Unwrap()
	}
	return !slices.ContainsFunc(attempts, func(err error) bool {
		text := status.Convert(err).Message()
		return !strings.Contains(text, "failed to resolve reference") &&
			!strings.Contains(text, "failed to resolve image")
	})
}

// pullWith tries one credential after the other: several may match a registry. It returns the one
// that was accepted, nil if there are none.
func (m *Manager) pullWith(
	ctx context.Context, r *request, credentials []credentialprovider.TrackedAuthConfig,
) (string, *credentialprovider.TrackedAuthConfig, error) {
	attempts := []*credentialprovider.TrackedAuthConfig{nil}
	if len(credentials) > 0 {
		attempts = lo.ToSlicePtr(credentials)
	}
	var errs []error
	for _, with := range attempts {
		resp, err := m.cfg.Images.PullImage(ctx, &runtimeapi.PullImageRequest{
			Image: r.spec(), Auth: authConfig(with), SandboxConfig: r.sandbox,
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

// pullLock serializes the pulls of one image.
type pullLock struct {
	*semaphore.Weighted
	users int // that hold it or wait for it
}

// lockPull returns when no other pull of the image runs; the caller calls unlock afterwards. It
// returns early when ctx ends, so that a deleted Pod does not wait for the pull of another.
func (m *Manager) lockPull(ctx context.Context, name string) (unlock func(), err error) {
	m.mu.Lock()
	l := m.pulling[name]
	if l == nil {
		l = &pullLock{Weighted: semaphore.NewWeighted(1)}
		m.pulling[name] = l
	}
	l.users++
	m.mu.Unlock()
	leave := func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(m.pulling, name)
		}
	}
	if l.Acquire(ctx, 1) != nil {
		leave()
		return nil, context.Cause(ctx)
	}
	return func() { l.Release(1); leave() }, nil
}

// pullError sets the reason: two failures that CRI defines have their own.
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

// The time before the next pull of an image, which doubles with each failure.
const (
	initialBackoff = 10 * time.Second
	maxBackoff     = 300 * time.Second
)

// backoffKey: Pods may have different credentials for the same image.
type backoffKey struct {
	pod   types.UID
	image string
}

// failure is the last failed pull of a Pod's image, and the delay after it.
type failure struct {
	err   *Error
	delay time.Duration
}

// inBackoff returns the last failure if it is too early for another attempt, nil otherwise.
func (m *Manager) inBackoff(key backoffKey) *Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f, ok := m.backoff[key]; ok && time.Now().Before(f.err.RetryAt) {
		return f.err
	}
	return nil
}

// backOff records a failure and sets the time of the next attempt.
func (m *Manager) backOff(key backoffKey, e *Error) *Error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	// The Pods of old failures are gone, or do not need the image any more.
	maps.DeleteFunc(m.backoff, func(_ backoffKey, f failure) bool { return now.Sub(f.err.RetryAt) > 2*maxBackoff })
	delay := min(cmp.Or(2*m.backoff[key].delay, initialBackoff), maxBackoff)
	e.RetryAt = now.Add(delay)
	m.backoff[key] = failure{e, delay}
	return e
}

func (m *Manager) resetBackoff(key backoffKey) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.backoff, key)
}

// credentials returns the credentials of the Pod for the image. It reads them at the first call for
// a request.
func (m *Manager) credentials(ctx context.Context, r *request) ([]credentialprovider.TrackedAuthConfig, error) {
	if !r.read {
		r.found, r.findErr = m.findCredentials(ctx, r)
		r.read = true
	}
	return r.found, r.findErr
}

// findCredentials returns those in the Pod's pull secrets that match the image's registry, the best
// match first, each with its secret. A missing secret is an Event and no error: the image may be
// public.
func (m *Manager) findCredentials(ctx context.Context, r *request) ([]credentialprovider.TrackedAuthConfig, error) {
	var secrets []v1.Secret
	var missing []string
	for _, ref := range r.pod.Spec.ImagePullSecrets {
		if ref.Name == "" { // the API accepts it
			continue
		}
		secret, err := m.cfg.Secrets.Secret(ctx, r.pod.Namespace, ref.Name)
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Pull secret is missing",
				"pod", klog.KObj(r.pod), "secret", ref.Name, "err", err)
			missing = append(missing, ref.Name)
			continue
		}
		secrets = append(secrets, *secret)
	}
	if len(missing) > 0 {
		r.record(v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", fmt.Sprintf(
			"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.",
			strings.Join(missing, ", ")))
	}
	if len(secrets) == 0 {
		return nil, nil
	}
	keyring, err := credentialsecrets.MakeDockerKeyring(secrets, &credentialprovider.BasicDockerKeyring{})
	if err != nil {
		return nil, fmt.Errorf("reading pull secrets: %w", err)
	}
	named, err := dockerref.ParseNormalizedNamed(r.name)
	if err != nil {
		return nil, fmt.Errorf("parsing image name %q: %w", r.name, err)
	}
	found, _ := keyring.Lookup(named.Name())
	return found, nil
}

// authConfig converts credentials for CRI; nil stays nil.
func authConfig(c *credentialprovider.TrackedAuthConfig) *runtimeapi.AuthConfig {
	if c == nil {
		return nil
	}
	return &runtimeapi.AuthConfig{
		Username: c.Username, Password: c.Password, Auth: c.Auth,
		ServerAddress: c.ServerAddress, IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	}
}
