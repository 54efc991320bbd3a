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

	"flyball.dev/kubelet/volumes/internal/objects"
	"flyball.dev/kubelet/volumes/internal/tokens"
)

// tokensKey is where a driver finds the service account tokens of the Pod.
const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens" //nolint:gosec // a name

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
// They are bound to the Pod, and kept until their renewal.
func (p *Plugin) tokens(ctx context.Context, pod *v1.Pod, u *use, info *storagev1.CSIDriver) (string, error) {
	if info == nil || len(info.Spec.TokenRequests) == 0 {
		return "", nil
	}
	byAudience := map[string]authenticationv1.TokenRequestStatus{}
	for _, wanted := range info.Spec.TokenRequests {
		known := u.tokens[wanted.Audience]
		if known == nil || time.Now().After(tokens.Renewal(known)) {
			fresh, err := tokens.Request(ctx, p.cfg.Client, pod, wanted.Audience, wanted.ExpirationSeconds)
			if err != nil {
				return "", fmt.Errorf("requesting a token of service account %s for CSI driver %s: %w",
					pod.Spec.ServiceAccountName, info.Name, err)
			}
			known, u.tokens[wanted.Audience] = fresh, fresh
		}
		byAudience[wanted.Audience] = known.Status
	}
	content, err := json.Marshal(byAudience)
	return string(content), err
}
