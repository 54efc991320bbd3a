package controlplane

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"k8s.io/klog/v2"

	"flyball.dev/controlplane/approver"
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
	userSnapshots     = "system:flyball:snapshots"
)

type credentials struct {
	ca, frontProxyCA *pki.CA
	// servingCert, kubeletClient and frontProxyClient each hold a key and its certificate.
	servingCert, kubeletClient, frontProxyClient string
	// serviceAccountKey signs the tokens of service accounts.
	serviceAccountKey string
}

// ensureCredentials creates or renews all certificates, keys and kubeconfigs of this server. Beside
// the files that it returns it writes DataDir/server/kubeconfig/controllers.kubeconfig for our
// controllers, snapshots.kubeconfig there for the snapshot controller, and for the node agent of
// this host DataDir/agent/{kubelet,proxy,dns,storage}.kubeconfig, client-ca.crt and serving.pem (key
// and certificate of the kubelet's server).
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
	admin := pki.Leaf{Name: "admin", CommonName: "admin", Organization: []string{"system:masters"}}
	if err := writeKubeconfigs(cfg, store, c.ca, cfg.server("kubeconfig"),
		admin,
		pki.Leaf{Name: PartScheduler, CommonName: "system:kube-scheduler"},
		pki.Leaf{Name: PartControllerManager, CommonName: "system:kube-controller-manager"},
		pki.Leaf{Name: "controllers", CommonName: userControllers},
		pki.Leaf{Name: PartApprover, CommonName: userApprover},
		pki.Leaf{Name: "snapshots", CommonName: userSnapshots},
	); err != nil {
		return nil, err
	}
	if cfg.AdminKubeconfig != "" { // the one that people copy to other hosts
		pair, err := store.Issue(c.ca, admin)
		if err == nil {
			err = pki.WriteKubeconfig(cfg.AdminKubeconfig, cfg.localURL(), c.ca, pair, true)
		}
		if err != nil {
			return nil, err
		}
	}
	return c, ensureAgentCredentials(cfg, store, c.ca)
}

// ensureAgentCredentials writes the files that the node agent of this host needs. On a host that
// joins, package join requests and writes the same.
func ensureAgentCredentials(cfg Config, store pki.Store, ca *pki.CA) error {
	store.Dir = filepath.Join(cfg.DataDir, "agent")
	node := pki.Leaf{Name: "kubelet", CommonName: "system:node:" + cfg.NodeName, Organization: []string{"system:nodes"}}
	serving := node
	serving.Name, serving.DNSNames = "serving", []string{cfg.NodeName}
	serving.Addresses = append(slices.Clip(cfg.NodeIPs), netip.MustParseAddr("127.0.0.1"))
	if _, err := store.Issue(ca, serving); err != nil {
		return err
	}
	if err := writeKubeconfigs(cfg, store, ca, store.Dir,
		node, pki.Leaf{Name: "proxy", CommonName: "system:kube-proxy"}, pki.Leaf{Name: "dns", CommonName: userDNS},
		pki.Leaf{Name: "storage", CommonName: approver.StorageUserPrefix + cfg.NodeName, Organization: []string{approver.StorageGroup}},
	); err != nil {
		return err
	}
	return pki.WriteFile(filepath.Join(store.Dir, "client-ca.crt"), ca.PEM, 0o644)
}

// writeKubeconfigs writes NAME.kubeconfig into dir for each leaf.
func writeKubeconfigs(cfg Config, store pki.Store, ca *pki.CA, dir string, leaves ...pki.Leaf) error {
	for _, l := range leaves {
		pair, err := store.Issue(ca, l)
		if err == nil {
			err = pki.WriteKubeconfig(filepath.Join(dir, l.Name+".kubeconfig"), cfg.localURL(), ca, pair, false)
		}
		if err != nil {
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

const renewEvery = time.Hour

// renewCertificates renews what ensureCredentials has issued: a server may run for longer than a
// certificate is valid. Its clients read the files again, kube-apiserver within a minute and
// client-go within five.
func (s *server) renewCertificates(ctx context.Context, up func()) error {
	up()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(min(renewEvery, s.store.Life/100)):
		}
		if _, err := ensureCredentials(s.cfg, s.store); err != nil {
			klog.FromContext(ctx).Error(err, "Renewing certificates failed, trying again")
			s.cfg.progress(PartCertificates, StateUp, err)
		}
	}
}
