package volumes

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/internal/objects"
)

const (
	tokenTimeout = 10 * time.Second // of a request
	tokenRetry   = time.Minute      // when to try again to renew a token that is still valid
)

// tokenKey names the service account token of a mounted Pod. Tokens are in memory only: a restarted
// agent requests new ones.
type tokenKey struct {
	pod      types.UID
	audience string
	seconds  int64
}

// token returns a token of the Pod's service account, bound to the Pod, and when to call again: it
// is renewed after 80 % of its life, or a day.
func (m *Manager) token(
	ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection,
) (string, time.Time, error) {
	key := tokenKey{pod.UID, p.Audience, ptr.Deref(p.ExpirationSeconds, 0)}
	m.mu.Lock()
	known := m.tokens[key]
	m.mu.Unlock()
	if known != nil && time.Now().Before(renewal(known)) {
		return known.Status.Token, renewal(known), nil
	}
	fresh, err := m.requestToken(ctx, pod, p)
	switch {
	case err != nil && known != nil && time.Now().Before(known.Status.ExpirationTimestamp.Time):
		klog.FromContext(ctx).Error(err, "Cannot renew a token, trying again", "pod", klog.KObj(pod))
		return known.Status.Token, time.Now().Add(tokenRetry), nil
	case err != nil:
		return "", time.Time{}, fmt.Errorf("failed to fetch token: %w", err) // upstream's words
	case !m.cfg.NoFiles: // else nobody reads it
		m.mu.Lock()
		defer m.mu.Unlock()
		m.tokens[key] = fresh
	}
	return fresh.Status.Token, renewal(fresh), nil
}

func (m *Manager) requestToken(
	ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection,
) (*authenticationv1.TokenRequest, error) {
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: p.ExpirationSeconds, BoundObjectRef: bound,
	}}
	if p.Audience != "" {
		request.Spec.Audiences = []string{p.Audience}
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	return objects.Retry(objects.PodUnknown, func() (*authenticationv1.TokenRequest, error) {
		accounts := m.cfg.Client.CoreV1().ServiceAccounts(pod.Namespace)
		return accounts.CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	})
}

// renewal is when to request a new token.
func renewal(token *authenticationv1.TokenRequest) time.Time {
	life := time.Duration(ptr.Deref(token.Spec.ExpirationSeconds, 0)) * time.Second
	issued := token.Status.ExpirationTimestamp.Add(-life)
	return issued.Add(min(life*4/5, 24*time.Hour))
}
