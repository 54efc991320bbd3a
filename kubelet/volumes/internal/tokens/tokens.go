// Package tokens requests service account tokens that are bound to a Pod.
package tokens

import (
	"context"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/internal/objects"
)

// timeout of a request.
const timeout = 10 * time.Second

// Request returns a new token of the Pod's service account. Without an audience it is for the API
// server; without seconds the API server chooses how long it lives.
func Request(
	ctx context.Context, client kubernetes.Interface, pod *v1.Pod, audience string, seconds *int64,
) (*authenticationv1.TokenRequest, error) {
	bound := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: seconds, BoundObjectRef: bound,
	}}
	if audience != "" {
		request.Spec.Audiences = []string{audience}
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return objects.Retry(objects.PodUnknown, func() (*authenticationv1.TokenRequest, error) {
		accounts := client.CoreV1().ServiceAccounts(pod.Namespace)
		return accounts.CreateToken(ctx, pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	})
}

// Renewal is when to request a new token: after 80 % of its life, or a day.
func Renewal(token *authenticationv1.TokenRequest) time.Time {
	life := time.Duration(ptr.Deref(token.Spec.ExpirationSeconds, 0)) * time.Second
	issued := token.Status.ExpirationTimestamp.Add(-life)
	return issued.Add(min(life*4/5, 24*time.Hour))
}
