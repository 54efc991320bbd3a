package volumes

import (
	"context"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/token"

	"flyball.dev/kubelet/volumes/internal/objects"
)

// tokenTimeout bounds a request whose caller sets no bound.
const tokenTimeout = 10 * time.Second

// tokens are the service account tokens of Pods.
type tokens interface {
	GetServiceAccountToken(namespace, name string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
	DeleteServiceAccountToken(podUID types.UID)
}

func newTokens(cfg Config) tokens {
	client := retryingClient{cfg.Client}
	if cfg.NoFiles {
		return uncached{client}
	}
	return token.NewManager(client)
}

// uncached requests tokens and forgets them: on a simulated node nobody reads them.
type uncached struct{ client kubernetes.Interface }

// GetServiceAccountToken implements tokens.
func (u uncached) GetServiceAccountToken(namespace, name string, request *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	ctx, cancel := context.WithTimeout(context.Background(), tokenTimeout)
	defer cancel()
	answer, err := u.client.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("failed to fetch token: %w", err) // upstream's words
	}
	return answer, nil
}

// DeleteServiceAccountToken implements tokens.
func (uncached) DeleteServiceAccountToken(types.UID) {}

// retryingClient retries token requests while the API server does not know yet that the Pod runs on
// this node: the node's watch may be ahead of the Node authorizer's.
type retryingClient struct{ kubernetes.Interface }

func (c retryingClient) CoreV1() corev1.CoreV1Interface { return retryingCore{c.Interface.CoreV1()} }

type retryingCore struct{ corev1.CoreV1Interface }

func (c retryingCore) ServiceAccounts(namespace string) corev1.ServiceAccountInterface {
	return retryingAccounts{c.CoreV1Interface.ServiceAccounts(namespace)}
}

type retryingAccounts struct{ corev1.ServiceAccountInterface }

// CreateToken implements ServiceAccountInterface.
func (c retryingAccounts) CreateToken(
	ctx context.Context, name string, request *authenticationv1.TokenRequest, opts metav1.CreateOptions,
) (*authenticationv1.TokenRequest, error) {
	return objects.Retry(ctx, func() (*authenticationv1.TokenRequest, error) {
		return c.ServiceAccountInterface.CreateToken(ctx, name, request, opts)
	})
}
