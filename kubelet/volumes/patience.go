package volumes

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"

	"flyball.dev/kubelet/volumes/internal/objects"
)

// patientClient asks again when the API server does not know yet that the Pod is
// ours. A node may hear of its Pod before the API server's Node authorizer does:
// both learn of it from a watch.
type patientClient struct{ kubernetes.Interface }

func (c patientClient) CoreV1() corev1.CoreV1Interface { return patientCore{c.Interface.CoreV1()} }

type patientCore struct{ corev1.CoreV1Interface }

func (c patientCore) ServiceAccounts(namespace string) corev1.ServiceAccountInterface {
	return patientAccounts{c.CoreV1Interface.ServiceAccounts(namespace)}
}

type patientAccounts struct{ corev1.ServiceAccountInterface }

func (c patientAccounts) CreateToken(ctx context.Context, name string, request *authenticationv1.TokenRequest, opts metav1.CreateOptions) (*authenticationv1.TokenRequest, error) {
	return objects.Patiently(ctx, func() (*authenticationv1.TokenRequest, error) {
		return c.ServiceAccountInterface.CreateToken(ctx, name, request, opts)
	})
}
