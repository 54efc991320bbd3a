package controlplane

import (
	"net/netip"
	"path/filepath"
	"slices"

	"flyball.dev/controlplane/pki"
)

// The users of our own that kube-apiserver authenticates by certificate. manifests/ binds them to
// their roles.
const (
	userKubeletClient = "kube-apiserver-kubelet-client"
	userFrontProxy    = "front-proxy-client"
	userDNS           = "system:flyball:dns"
	userControllers   = "system:flyball:controllers"
	userApprover      = "system:flyball:csr-approver"
)

// credentials are the files that the components of the server start with.
type credentials struct {
	ca, frontProxyCA *pki.CA
	// servingCert, kubeletClient and frontProxyClient each hold a key and its certificate.
	servingCert, kubeletClient, frontProxyClient string
	// serviceAccountKey signs the tokens of service accounts.
	serviceAccountKey string
	// admin, scheduler, controllerManager and approver are kubeconfigs.
	admin, scheduler, controllerManager, approver string
}

// ensureCredentials creates or renews all certificates, keys and kubeconfigs of this server. Beside
// the files that it returns it writes DataDir/server/kubeconfig/controllers.kubeconfig for our
// controllers, and for the node agent of this host DataDir/agent/{kubelet,proxy,dns}.kubeconfig,
// client-ca.crt and serving.pem (key and certificate of the kubelet's server).
func ensureCredentials(cfg Config, store pki.Store) (_ *credentials, err error) {
	c := &credentials{}
	if c.ca, err = store.CA("ca", "flyball-ca"); err != nil {
		return nil, err
	}
	if c.frontProxyCA, err = store.CA("front-proxy-ca", "flyball-front-proxy-ca"); err != nil {
		return nil, err
	}
	if c.serviceAccountKey, err = store.SigningKey("service-account"); err != nil {
		return nil, err
	}
	for _, l := range []struct {
		ca   *pki.CA
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
func writeAdminKubeconfig(cfg Config, store pki.Store, ca *pki.CA) error {
	if cfg.AdminKubeconfig == "" {
		return nil
	}
	pair, err := store.Issue(ca, adminLeaf)
	if err != nil {
		return err
	}
	return pki.WriteKubeconfig(cfg.AdminKubeconfig, cfg.localURL(), ca, pair)
}

// ensureAgentCredentials writes the files that the node agent of this host needs. On a host that
// joins, package join requests and writes the same.
func ensureAgentCredentials(cfg Config, store pki.Store, ca *pki.CA) error {
	dir := filepath.Join(cfg.DataDir, "agent")
	store.Dir = dir
	if _, err := store.Issue(ca, pki.Leaf{
		Name: "serving", CommonName: "system:node:" + cfg.NodeName, Organization: []string{"system:nodes"},
		DNSNames: []string{cfg.NodeName}, Addresses: append(slices.Clip(cfg.NodeIPs), netip.MustParseAddr("127.0.0.1")),
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
	return pki.WriteFile(filepath.Join(dir, "client-ca.crt"), ca.PEM, 0o644)
}

// client is an identity and the kubeconfig that carries it.
type client struct {
	leaf pki.Leaf
	path string
}

func writeKubeconfigs(cfg Config, store pki.Store, ca *pki.CA, clients []client) error {
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

// servingLeaf describes kube-apiserver's certificate, with every name and address that it is
// reached by.
func servingLeaf(cfg Config) pki.Leaf {
	l := pki.Leaf{
		Name: "kube-apiserver", CommonName: "kube-apiserver",
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + cfg.ClusterDomain},
	}
	if cfg.NodeName != "localhost" {
		l.DNSNames = append(l.DNSNames, cfg.NodeName)
	}
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}
	for _, a := range slices.Concat(loopback, cfg.NodeIPs, cfg.apiServiceIPs(), []netip.Addr{cfg.BindAddress}) {
		if a = a.Unmap(); !a.IsUnspecified() && !slices.Contains(l.Addresses, a) {
			l.Addresses = append(l.Addresses, a)
		}
	}
	return l
}
