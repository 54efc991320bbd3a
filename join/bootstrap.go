package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/certificate"
	"k8s.io/client-go/util/certificate/csr"
	"k8s.io/client-go/util/keyutil"
)

// approvalTimeout is how long the server may take to issue the node's first certificate.
const approvalTimeout = time.Minute

// subject is the identity of a node
// (https://kubernetes.io/docs/reference/access-authn-authz/node/).
func subject(nodeName string) pkix.Name {
	return pkix.Name{CommonName: "system:node:" + nodeName, Organization: []string{"system:nodes"}}
}

// requestClient obtains the node's client certificate with the token.
func requestClient(ctx context.Context, client kubernetes.Interface, s *session) (cert, key []byte, err error) {
	doing := fmt.Sprintf("obtaining a certificate for node %s from %s", s.cfg.NodeName, s.cfg.Server)
	private, request, err := newRequest(s.cfg.NodeName)
	if err == nil {
		key, err = keyutil.MarshalPrivateKeyToPEM(private)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", doing, err)
	}
	type created struct {
		name string
		uid  types.UID
	}
	r, err := retry(ctx, s, func(ctx context.Context) (r created, err error) {
		r.name, r.uid, err = csr.RequestCertificateWithContext(ctx, client, request, "", certificatesv1.KubeAPIServerClientKubeletSignerName, nil,
			certificate.DefaultKubeletClientGetUsages(private), private)
		return r, err
	})
	if err != nil {
		return nil, nil, s.explain(ctx, doing, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, approvalTimeout, fmt.Errorf("it has not within %s", approvalTimeout))
	defer cancel()
	if cert, err = csr.WaitForCertificate(ctx, client, r.name, r.uid); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx) // upstream's error does not say for what it waited
		}
		return nil, nil, fmt.Errorf("%s: waiting until kube-controller-manager approves CertificateSigningRequest %s: %w; `flyball kubectl describe csr %s` on the server says more",
			doing, r.name, err, r.name)
	}
	return cert, key, nil
}

// newRequest generates a key, and a request for its certificate.
func newRequest(nodeName string) (*ecdsa.PrivateKey, []byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("generating a key: %w", err)
	}
	request, err := certutil.MakeCSRFromTemplate(private, &x509.CertificateRequest{Subject: subject(nodeName)})
	if err != nil {
		return nil, nil, fmt.Errorf("creating a certificate signing request: %w", err)
	}
	return private, request, nil
}
