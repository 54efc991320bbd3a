package podcerts

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"net/http"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"flyball.dev/kubelet/volumes/internal/objects"
	"flyball.dev/kubelet/volumes/internal/pemtext"
)

// act carries an action out and remembers the result.
func (s *Store) act(ctx context.Context, e *entry, a action, pod *v1.Pod, p *v1.PodCertificateProjection) error {
	klog.FromContext(ctx).V(2).Info("Acting on a certificate",
		"pod", klog.KObj(pod), "signer", p.SignerName, "action", fmt.Sprintf("%T", a), "reason", a.why())
	var created *pending
	if _, ok := a.(create); ok {
		var err error
		if created, err = s.create(ctx, pod, p); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch a := a.(type) {
	case create:
		e.pending = created
	case adopt:
		e.have = &Credential{
			Key: e.pending.key, Chain: pemtext.Encode(pemtext.Decode([]byte(a.chain))),
			refreshAt: a.beginRefreshAt.Add(e.pending.jitter), notAfter: a.expiresAt,
		}
		e.pending, e.overdue, e.expired = nil, false, false
	case refuse:
		e.refused = a.message
		s.cfg.Event(pod, v1.EventTypeWarning, a.event, a.message)
	case warn:
		e.overdue = true
		e.expired = e.expired || a.event == eventExpired
		s.cfg.Event(pod, v1.EventTypeWarning, a.event, a.message)
	}
	return nil
}

// create makes a request with a new key.
func (s *Store) create(ctx context.Context, pod *v1.Pod, p *v1.PodCertificateProjection) (*pending, error) {
	account, err := objects.Retry(objects.PodUnknown, func() (*v1.ServiceAccount, error) {
		return s.cfg.Client.CoreV1().ServiceAccounts(pod.Namespace).Get(ctx, pod.Spec.ServiceAccountName, metav1.GetOptions{})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the Pod's service account: %w", err)
	}
	node, err := s.cfg.Client.CoreV1().Nodes().Get(ctx, s.cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("reading the Pod's node: %w", err)
	}
	key, csr, err := newKey(p.KeyType)
	if err != nil {
		return nil, err
	}
	request, err := objects.Retry(admissionBehind, func() (*certificatesv1.PodCertificateRequest, error) {
		requests := s.cfg.Client.CertificatesV1().PodCertificateRequests(pod.Namespace)
		return requests.Create(ctx, requestFor(pod, p, account, node, csr), metav1.CreateOptions{})
	})
	if err != nil {
		return nil, fmt.Errorf("creating a PodCertificateRequest for signer %q: %w", p.SignerName, err)
	}
	return &pending{
		name: request.Name, key: key, abandonAt: time.Now().Add(abandonAfter),
		jitter: mathrand.N(spread), //nolint:gosec // no secret
	}, nil
}

// admissionBehind says whether the NodeRestriction admission does not know the Pod yet, or has an
// old state of it: the error is Forbidden, or no API error.
func admissionBehind(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && (apierrors.IsForbidden(err) || status.ErrStatus.Code == http.StatusInternalServerError)
}

// newKey makes a key of a type in the words of the API, as PEM, with an empty
// PKCS#10 request that proves its possession, as DER.
func newKey(keyType string) (keyPEM, csr []byte, err error) {
	var der []byte
	key, err := generate(keyType)
	if err == nil {
		der, err = x509.MarshalPKCS8PrivateKey(key)
	}
	if err == nil {
		csr, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making a key of type %q: %w", keyType, err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), csr, nil
}

func generate(keyType string) (crypto.Signer, error) {
	switch keyType {
	case "RSA3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECDSAP256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECDSAP384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECDSAP521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ED25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("the type is not known: use one of RSA3072, RSA4096, ECDSAP256, ECDSAP384, ECDSAP521, ED25519")
}
