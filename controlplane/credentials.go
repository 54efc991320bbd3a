package controlplane

import (
	"context"
	"net/netip"
	"path/filepath"
	"time"

	"k8s.io/klog/v2"

	"flyball.dev/controlplane/pki"
)

// The users that kube-apiserver knows by certificate, beside upstream's own names. manifests/ binds them to their roles.
const (
	userKubeletClient = "kube-apiserver-kubelet-client"
	userFrontProxy    = "front-proxy-client"
	userDNS           = "system:flyball:dns"
	userControllers   = "system:flyball:controllers"
	userApprover      = "system:flyball:csr-approver"
)

// renewEvery is how often certificates are compared with the clock, at most.
const renewEvery = time.Hour

// credentials are the files that the parts of the server are started with.
type credentials struct {
	ca, frontProxyCA *pki.Authority
	// servingCert, kubeletClient and frontProxyClient hold key and certificate both.
	servingCert, kubeletClient, frontProxyClient string
	// serviceAccountKey signs the tokens of service accounts.
	serviceAccountKey string
	// admin, scheduler, controllerManager and approver are kubeconfigs.
	admin, scheduler, controllerManager, approver string
}

// keepCredentials renews what ensureCredentials has made, until ctx ends: a server may run for longer than a certificate
// lives. Everybody on this host reads the files again: kube-apiserver within a minute, client-go within five.
func (r *runner) keepCredentials(ctx context.Context, up func()) error {
	up()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(renewEvery, r.store.Life/100)):
		}
		if _, err := ensureCredentials(r.cfg, r.store); err != nil {
			klog.FromContext(ctx).Error(err, "Renewing certificates failed, trying again")
			r.cfg.progress(PartCertificates, StateUp, err)
		}
	}
}

// ensureCredentials makes or renews everything that authenticates anybody in this cluster. It writes, beside the files that
// it returns, DataDir/server/kubeconfig/controllers.kubeconfig for our controllers, and for the node agent of this machine
// DataDir/agent/{kubelet,proxy,dns}.kubeconfig, client-ca.crt and serving.pem (key and certificate of the kubelet's server).
func ensureCredentials(cfg Config, store pki.Store) (_ *credentials, err error) {
	c := &credentials{}
	if c.ca, err = store.Authority("ca", "flyball-ca"); err != nil {
		return nil, err
	}
	if c.frontProxyCA, err = store.Authority("front-proxy-ca", "flyball-front-proxy-ca"); err != nil {
		return nil, err
	}
	if c.serviceAccountKey, err = store.SigningKey("service-account"); err != nil {
		return nil, err
	}
	for _, l := range []struct {
		ca   *pki.Authority
		leaf pki.Leaf
		path *string
	}{
		{c.ca, servingLeaf(cfg), &c.servingCert},
		{c.ca, pki.Leaf{Name: userKubeletClient, CommonName: userKubeletClient}, &c.kubeletClient},
		{c.frontProxyCA, pki.Leaf{Name: userFrontProxy, CommonName: userFrontProxy}, &c.frontProxyClient},
	} {
		pair, err := store.Issue(l.ca, l.leaf)
		if err != nil {
			return nil, err
		}
		*l.path = pair.Path
	}
	kubeconfigs := cfg.server("kubeconfig")
	c.admin = filepath.Join(kubeconfigs, "admin.kubeconfig")
	c.scheduler = filepath.Join(kubeconfigs, "kube-scheduler.kubeconfig")
	c.controllerManager = filepath.Join(kubeconfigs, "kube-controller-manager.kubeconfig")
	c.approver = filepath.Join(kubeconfigs, "csr-approver.kubeconfig")
	if err := writeKubeconfigs(cfg, store, c.ca, []client{
		{adminLeaf, c.admin},
		{pki.Leaf{Name: "kube-scheduler", CommonName: "system:kube-scheduler"}, c.scheduler},
		{pki.Leaf{Name: "kube-controller-manager", CommonName: "system:kube-controller-manager"}, c.controllerManager},
		{pki.Leaf{Name: "controllers", CommonName: userControllers}, filepath.Join(kubeconfigs, "controllers.kubeconfig")},
		{pki.Leaf{Name: "csr-approver", CommonName: userApprover}, c.approver},
	}); err != nil {
		return nil, err
	}
	if err := writeAdminKubeconfig(cfg, store, c.ca); err != nil {
		return nil, err
	}
	return c, ensureAgentCredentials(cfg, store, c.ca)
}

// adminLeaf is the administrator's certificate.
var adminLeaf = pki.Leaf{Name: "admin", CommonName: "admin", Organization: []string{"system:masters"}}

// writeAdminKubeconfig writes the one kubeconfig that people copy to other hosts.
func writeAdminKubeconfig(cfg Config, store pki.Store, ca *pki.Authority) error {
	if cfg.AdminKubeconfig == "" {
		return nil
	}
	pair, err := store.Issue(ca, adminLeaf)
	if err != nil {
		return err
	}
	return pki.WriteKubeconfig(cfg.AdminKubeconfig, cfg.localURL(), ca, pair)
}

// ensureAgentCredentials writes what the node agent of this machine needs. A machine that joins gets the same
// from package join, which asks for it.
func ensureAgentCredentials(cfg Config, store pki.Store, ca *pki.Authority) error {
	dir := filepath.Join(cfg.DataDir, "agent")
	store.Dir = dir
	if _, err := store.Issue(ca, pki.Leaf{
		Name: "serving", CommonName: "system:node:" + cfg.NodeName, Organization: []string{"system:nodes"},
		DNSNames: []string{cfg.NodeName}, Addresses: []netip.Addr{cfg.NodeIP, netip.MustParseAddr("127.0.0.1")},
	}); err != nil {
		return err
	}
	if err := writeKubeconfigs(cfg, store, ca, []client{
		{pki.Leaf{Name: "kubelet", CommonName: "system:node:" + cfg.NodeName, Organization: []string{"system:nodes"}}, filepath.Join(dir, "kubelet.kubeconfig")},
		{pki.Leaf{Name: "proxy", CommonName: "system:kube-proxy"}, filepath.Join(dir, "proxy.kubeconfig")},
		{pki.Leaf{Name: "dns", CommonName: userDNS}, filepath.Join(dir, "dns.kubeconfig")},
	}); err != nil {
		return err
	}
	return pki.WriteCertificate(filepath.Join(dir, "client-ca.crt"), ca)
}

// client is an identity and the kubeconfig that carries it.
type client struct {
	leaf pki.Leaf
	path string
}

func writeKubeconfigs(cfg Config, store pki.Store, ca *pki.Authority, clients []client) error {
	for _, c := range clients {
		pair, err := store.Issue(ca, c.leaf)
		if err != nil {
			return err
		}
		if err := pki.WriteLocalKubeconfig(c.path, cfg.localURL(), ca, pair); err != nil {
			return err
		}
	}
	return nil
}

// servingLeaf is kube-apiserver's certificate: every name and address that it is reached by.
func servingLeaf(cfg Config) pki.Leaf {
	l := pki.Leaf{
		Name: "kube-apiserver", CommonName: "kube-apiserver",
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + cfg.ClusterDomain},
	}
	if cfg.NodeName != "localhost" {
		l.DNSNames = append(l.DNSNames, cfg.NodeName)
	}
	for _, a := range []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback(), cfg.NodeIP, cfg.apiServiceIP(), cfg.BindAddress} {
		known := false
		for _, have := range l.Addresses {
			known = known || have == a.Unmap()
		}
		if !known && !a.IsUnspecified() {
			l.Addresses = append(l.Addresses, a.Unmap())
		}
	}
	return l
}
