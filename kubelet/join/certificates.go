package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/certificate"
	"k8s.io/klog/v2"
)

// Certificates keeps the certificates of a joined machine valid.
type Certificates struct {
	// Dir is the agent's directory.
	Dir      string
	NodeName string
	// NodeIP is the address that the Node reports, and the kubelet is reached at.
	NodeIP netip.Addr

	serving atomic.Pointer[certificate.Manager]
}

// lookEvery is how often Run looks whether the serving certificate has come. The manager has no event for it.
const lookEvery = 100 * time.Millisecond

// Run renews both certificates until ctx ends. up is called once both are there. The serving one is not before the Node
// exists: the server compares its addresses with what is asked for.
func (c *Certificates) Run(ctx context.Context, up func()) error {
	rc, err := clientcmd.BuildConfigFromFlags("", filepath.Join(c.Dir, kubeconfigs[0]))
	if err != nil {
		return fmt.Errorf("reading the node's credentials: %w", err)
	}
	client, err := newClient(rc)
	if err != nil {
		return err
	}
	renewal, err := c.manager(ctx, client, clientPair, certificate.Config{
		SignerName:  certificatesv1.KubeAPIServerClientKubeletSignerName,
		GetTemplate: func() *x509.CertificateRequest { return &x509.CertificateRequest{Subject: subject(c.NodeName)} },
		GetUsages:   certificate.DefaultKubeletClientGetUsages,
	})
	if err != nil {
		return err
	}
	serving, err := c.manager(ctx, client, servingPair, certificate.Config{
		SignerName:  certificatesv1.KubeletServingSignerName,
		GetTemplate: c.servingTemplate,
		GetUsages:   certificate.DefaultKubeletServingGetUsages,
	})
	if err != nil {
		return err
	}
	c.serving.Store(&serving)
	renewal.Start()
	serving.Start()
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for serving.Current() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
	up()
	<-ctx.Done()
	return nil
}

// manager is one of upstream's, which ends with ctx.
func (c *Certificates) manager(ctx context.Context, client kubernetes.Interface, pair string, config certificate.Config) (certificate.Manager, error) {
	store, err := newStore(klog.FromContext(ctx), pair, c.Dir)
	if err != nil {
		return nil, err
	}
	config.ClientsetFn = func(*tls.Certificate) (kubernetes.Interface, error) { return client, nil }
	config.CertificateStore, config.Ctx = store, &ctx
	m, err := certificate.NewManager(&config)
	if err != nil {
		return nil, fmt.Errorf("preparing to renew the node's certificates: %w", err)
	}
	return m, nil
}

// servingTemplate asks for the names that the Node reports, and no others: the server approves no others.
func (c *Certificates) servingTemplate() *x509.CertificateRequest {
	return &x509.CertificateRequest{
		Subject: subject(c.NodeName), DNSNames: []string{c.NodeName}, IPAddresses: []net.IP{c.NodeIP.AsSlice()},
	}
}

// GetCertificate is what the kubelet's server shows, for tls.Config.
func (c *Certificates) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	m := c.serving.Load()
	if m == nil {
		return nil, errors.New("the serving certificate of this node has not been requested yet")
	}
	if current := (*m).Current(); current != nil {
		return current, nil
	}
	return nil, errors.New("the serving certificate of this node has not been issued yet; `flyball kubectl get csr` on the server shows whether it was approved")
}

// Expired tells whether the client certificate of a joined machine can no longer renew itself, and since when.
func Expired(dir string, now time.Time) (time.Time, bool) {
	pair := filepath.Join(dir, clientPair+"-current.pem")
	cert, err := tls.LoadX509KeyPair(pair, pair)
	if err != nil || cert.Leaf == nil {
		return time.Time{}, true
	}
	return cert.Leaf.NotAfter, now.After(cert.Leaf.NotAfter)
}
