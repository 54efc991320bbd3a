package images

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/events"
)

func (m *Manager) get(ctx context.Context, r *request) (_ string, err error) {
	if r.name, err = withTag(r.image); err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: %v", r.image, err)
		r.record(v1.EventTypeWarning, events.FailedToInspectImage, msg)
		return "", &Error{Reason: ReasonInvalidImageName, Message: msg, Err: err}
	}
	// The API server has set the policy, except in tests and old objects.
	r.policy = cmp.Or(r.policy, lo.Ternary(strings.HasSuffix(r.name, ":latest"), v1.PullAlways, v1.PullIfNotPresent))
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
