package join

import (
	"cmp"
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
	// ClientFailures and ServingFailures count renewals of either certificate that failed. May be nil.
	ClientFailures, ServingFailures certificate.Counter

	serving      atomic.Pointer[certificate.Manager]
	issuedWithin time.Duration // issuedWithin if zero
}

const (
	// lookEvery is how often Run looks whether the serving certificate has come. The manager has no event for it.
	lookEvery = 100 * time.Millisecond
	// issuedWithin is after how long without a serving certificate somebody has to be told: an administrator may have to
	// approve it.
	issuedWithin = 30 * time.Second
	// prepareAgain is when the serving certificate is seen to again after its files could not be.
	prepareAgain = 10 * time.Second
)

// errNotIssued is what is shown for a node whose serving certificate lets itself be waited for.
var errNotIssued = errors.New("the serving certificate of this node has not been issued yet; `flyball kubectl describe csr` on the server says why")

// Run renews both certificates until ctx ends. up is called once both are there, and report with what is in the way until
// then. The serving one is not there before the Node is: the server compares its addresses with what is asked for.
func (c *Certificates) Run(ctx context.Context, up func(), report func(error)) error {
	// Upstream's managers end with this call, also if it fails and is made again.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
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

		CertificateRenewFailure: c.ClientFailures,
	})
	if err != nil {
		return err
	}
	// The client certificate is what the node lives by. Whatever is wrong with the other one, this one is renewed.
	renewal.Start()
	serving, err := c.serve(ctx, client, report)
	if err != nil {
		return nil // told to stop
	}
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	late := time.After(cmp.Or(c.issuedWithin, issuedWithin))
	for serving.Current() == nil {
		select {
		case <-ctx.Done():
			return nil
		case <-late:
			report(errNotIssued)
		case <-ticker.C:
		}
	}
	up()
	<-ctx.Done()
	return nil
}

// serve starts what obtains the serving certificate. It returns an error only when ctx ends.
func (c *Certificates) serve(ctx context.Context, client kubernetes.Interface, report func(error)) (certificate.Manager, error) {
	for {
		c.setAsideBroken(klog.FromContext(ctx))
		serving, err := c.manager(ctx, client, servingPair, certificate.Config{
			SignerName:  certificatesv1.KubeletServingSignerName,
			GetTemplate: c.servingTemplate,
			GetUsages:   certificate.DefaultKubeletServingGetUsages,

			CertificateRenewFailure: c.ServingFailures,
		})
		if err == nil {
			c.serving.Store(&serving)
			serving.Start()
			return serving, nil
		}
		report(err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(prepareAgain):
		}
	}
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
	return nil, errNotIssued
}

// Expired tells whether the client certificate of a joined machine can no longer renew itself, and since when;
// zero if there is none that can be read.
func Expired(dir string, now time.Time) (time.Time, bool) {
	pair := current(dir, clientPair)
	cert, err := tls.LoadX509KeyPair(pair, pair)
	if err != nil || cert.Leaf == nil {
		return time.Time{}, true
	}
	return cert.Leaf.NotAfter, now.After(cert.Leaf.NotAfter)
}
