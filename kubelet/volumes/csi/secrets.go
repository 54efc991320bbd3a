package csi

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/internal/objects"
)

const (
	// tokensKey is where a driver finds the service account tokens of the Pod.
	tokensKey = "csi.storage.k8s.io/serviceAccount.tokens" //nolint:gosec // a name
	// tokenTimeout of a request for a token.
	tokenTimeout = 10 * time.Second
)

// secret reads what a call carries, nil if there is no reference.
func (p *Plugin) secret(ctx context.Context, ref *v1.SecretReference) (map[string]string, error) {
	if ref == nil {
		return nil, nil
	}
	secret, err := objects.Retry(apierrors.IsForbidden, func() (*v1.Secret, error) {
		return p.cfg.Client.CoreV1().Secrets(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the secret %s/%s for the CSI driver: %w", ref.Namespace, ref.Name, err)
	}
	content := make(map[string]string, len(secret.Data))
	for key, value := range secret.Data {
		content[key] = string(value)
	}
	return content, nil
}

// tokens are those that the driver asks for in its CSIDriver, as JSON by audience, empty for none.
// They are bound to the Pod, and kept until 80 % of their life, or a day, is over.
func (p *Plugin) tokens(ctx context.Context, pod *v1.Pod, u *use, info *storagev1.CSIDriver) (string, error) {
	if info == nil || len(info.Spec.TokenRequests) == 0 {
		return "", nil
	}
	tokens := map[string]authenticationv1.TokenRequestStatus{}
	for _, wanted := range info.Spec.TokenRequests {
		known := u.tokens[wanted.Audience]
		if known == nil || time.Now().After(renewal(known)) {
			fresh, err := p.requestToken(ctx, pod, wanted)
			if err != nil {
				return "", fmt.Errorf("requesting a token of service account %s for CSI driver %s: %w",
					pod.Spec.ServiceAccountName, info.Name, err)
			}
			known, u.tokens[wanted.Audience] = fresh, fresh
		}
		tokens[wanted.Audience] = known.Status
	}
	content, err := json.Marshal(tokens)
	return string(content), err
}

func (p *Plugin) requestToken(
	ctx context.Context, pod *v1.Pod, wanted storagev1.TokenRequest,
) (*authenticationv1.TokenRequest, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: wanted.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if wanted.Audience != "" {
		request.Spec.Audiences = []string{wanted.Audience}
	}
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	return objects.Retry(objects.PodUnknown, func() (*authenticationv1.TokenRequest, error) {
		accounts := p.cfg.Client.CoreV1().ServiceAccounts(pod.Namespace)
		return accounts.CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	})
}

// renewal is when to request a new token.
func renewal(token *authenticationv1.TokenRequest) time.Time {
	life := time.Duration(ptr.Deref(token.Spec.ExpirationSeconds, 0)) * time.Second
	return token.Status.ExpirationTimestamp.Add(-max(life/5, life-24*time.Hour))
}
