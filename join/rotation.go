package join

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/certificate"
	"k8s.io/klog/v2"
)

// Certificates renews the certificates of a joined host.
type Certificates struct {
	// Dir is the agent's directory.
	Dir      string
	NodeName string
	// NodeIPs are the addresses that the Node reports and the kubelet serves at, one or two.
	NodeIPs []netip.Addr
	// ClientFailures and ServingFailures count renewals of either certificate that failed. May be
	// nil.
	ClientFailures, ServingFailures certificate.Counter

	serving     atomic.Pointer[certificate.Manager]
	storage     atomic.Pointer[certificate.Manager]
	reportAfter time.Duration // the constant of this name if zero
}

// NewCertificates returns what renews the certificates in the agent's directory dir, and counters
// of the renewals that failed. nodeIPs are the addresses that the Node reports.
func NewCertificates(dir, nodeName string, nodeIPs []netip.Addr) (*Certificates, []prometheus.Collector) {
	client := renewFailures("kubelet_certificate_manager_client_expiration_renew_errors", "client certificate")
	serving := renewFailures("kubelet_server_expiration_renew_errors", "serving certificate")
	return &Certificates{
		Dir: dir, NodeName: nodeName, NodeIPs: nodeIPs, ClientFailures: client, ServingFailures: serving,
	}, []prometheus.Collector{client, serving}
}

// renewFailures is a counter with the name that alerts for kubelets use.
func renewFailures(name, certificate string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: "Number of renewals of the node agent's " + certificate + " that failed."})
}

const (
	// pollEvery is how often Run checks whether the serving certificate has been issued. The
	// manager has no event for it.
	pollEvery = 100 * time.Millisecond
	// reportAfter is after how long a missing serving certificate is reported: an administrator may
	// have to approve it.
	reportAfter = 30 * time.Second
	// retryFilesEvery is how often Run retries when the files of the serving certificate are not
	// usable.
	retryFilesEvery = 10 * time.Second
)

// errNotIssued is reported while the serving certificate is missing.
var errNotIssued = errors.New("the serving certificate of this node has not been issued yet; `flyball kubectl describe csr` on the server says why")

// Run renews all certificates until ctx ends. It calls up once those of the kubelet exist, and until
// then report with errors. The serving certificate comes after the Node: the approver compares the request with
// the Node's addresses.
func (c *Certificates) Run(ctx context.Context, up func(), report func(error)) error {
	// Upstream's managers end with this call, also if it returns an error.
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
	// The node cannot work without its client certificate, so that one is renewed even if the other
	// cannot be.
	renewal.Start()
	storage, err := c.manager(ctx, client, storagePair, certificate.Config{
		SignerName:  certificatesv1.KubeAPIServerClientSignerName,
		GetTemplate: func() *x509.CertificateRequest { return &x509.CertificateRequest{Subject: storageSubject(c.NodeName)} },
		GetUsages:   certificate.DefaultKubeletClientGetUsages,
	})
	if err != nil {
		return err
	}
	c.storage.Store(&storage)
	storage.Start()
	serving, err := c.serve(ctx, client, report)
	if err != nil {
		return nil // ctx has ended
	}
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	late := time.After(cmp.Or(c.reportAfter, reportAfter))
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

// serve starts the manager of the serving certificate. It returns an error only when ctx ends.
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
		case <-time.After(retryFilesEvery):
		}
	}
}

// manager returns an upstream certificate manager, which ends with ctx.
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

// AwaitStorage waits until the storage driver has its certificate, or ctx ends.
func (c *Certificates) AwaitStorage(ctx context.Context) error {
	ticker := time.NewTicker(pollEvery)
	defer ticker.Stop()
	for {
		if m := c.storage.Load(); m != nil && (*m).Current() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// storageSubject is the identity of a node's storage driver, which package approver of the control
// plane approves for the node.
func storageSubject(nodeName string) pkix.Name {
	return pkix.Name{CommonName: "system:flyball:storage:" + nodeName, Organization: []string{"system:flyball:storage"}}
}

// servingTemplate requests the names and addresses that the Node reports: the approver approves no
// others.
func (c *Certificates) servingTemplate() *x509.CertificateRequest {
	r := &x509.CertificateRequest{Subject: subject(c.NodeName), DNSNames: []string{c.NodeName}}
	for _, ip := range c.NodeIPs {
		r.IPAddresses = append(r.IPAddresses, ip.AsSlice())
	}
	return r
}

// GetCertificate returns the kubelet's serving certificate, for tls.Config.
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

// Expired reports whether the client certificate of a joined host can no longer renew itself, and
// since when. The time is zero if the certificate cannot be read.
func Expired(dir string, now time.Time) (time.Time, bool) {
	pair := current(dir, clientPair)
	cert, err := tls.LoadX509KeyPair(pair, pair)
	if err != nil || cert.Leaf == nil {
		return time.Time{}, true
	}
	return cert.Leaf.NotAfter, now.After(cert.Leaf.NotAfter)
}
