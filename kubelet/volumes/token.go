package volumes

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/internal/tokens"
)

// tokenRetry is when to try again to renew a token that is still valid.
const tokenRetry = time.Minute

// tokenKey names the service account token of a mounted Pod. Tokens are in memory only: a restarted
// agent requests new ones.
type tokenKey struct {
	pod      types.UID
	audience string
	seconds  int64
}

// token returns a token of the Pod's service account, bound to the Pod, and when to call again.
func (m *Manager) token(
	ctx context.Context, pod *v1.Pod, p *v1.ServiceAccountTokenProjection,
) (string, time.Time, error) {
	key := tokenKey{pod.UID, p.Audience, ptr.Deref(p.ExpirationSeconds, 0)}
	m.mu.Lock()
	known := m.tokens[key]
	m.mu.Unlock()
	if known != nil && time.Now().Before(tokens.Renewal(known)) {
		return known.Status.Token, tokens.Renewal(known), nil
	}
	fresh, err := tokens.Request(ctx, m.cfg.Client, pod, p.Audience, p.ExpirationSeconds)
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
	return fresh.Status.Token, tokens.Renewal(fresh), nil
}
