package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"flyball.dev/kubelet/cri"
)

// Config of the node agent. A field is required unless its comment says otherwise.
type Config struct {
	// NodeName is the name of the Node. NodeIPs are its addresses: one or two, the primary first.
	NodeName string
	NodeIPs  []netip.Addr
	// Client connects to the API server with the identity of the node.
	Client *rest.Config
	// RootDir has the files of Pods, such as /var/lib/kubelet; PodLogsDir their logs, such as
	// /var/log/pods.
	RootDir, PodLogsDir string
	// Owner is a name that no other user of the runtime has: sandboxes and containers have it in a
	// label. It must not change, not even with RootDir.
	Owner string
	// CRIEndpoint is the runtime's address, unix:///….sock.
	CRIEndpoint string
	// SharedRuntime says that others may use the runtime too. The agent then owns only the
	// sandboxes and containers whose label names its Owner; otherwise it owns all, those of older
	// versions included.
	SharedRuntime bool
	// CNIConfig is a file without which Pods have no network, whatever a shared runtime says.
	// Optional.
	CNIConfig string
	// ClusterDNS are the name servers of Pods: one or two, the primary first. ClusterDomain is the
	// cluster's DNS domain.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// ResolvConf configures the name servers of the host; /etc/resolv.conf if empty.
	ResolvConf string
	// BindAddress and Port are where the HTTPS server listens. GetCertificate is called at each
	// handshake, since the certificate may be renewed, or not be issued yet. ClientCA signs the
	// client certificates that the server accepts.
	BindAddress    netip.Addr
	Port           int
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	ClientCA       *x509.CertPool
	// MaxPods is the capacity of the Node for Pods.
	MaxPods int
	// NodeLabels are set on the Node. Optional.
	NodeLabels map[string]string
	// AllowedUnsafeSysctls are sysctls, or prefixes followed by *, that Pods may set besides the
	// safe ones. Optional.
	AllowedUnsafeSysctls []string
	// ImagePullCredentialsVerificationPolicy says which present images need the credentials that
	// they were pulled with, as upstream's field of this name; NeverVerifyPreloadedImages if empty.
	// PreloadedImagesVerificationAllowlist are the exceptions under NeverVerifyAllowlistedImages.
	ImagePullCredentialsVerificationPolicy string
	PreloadedImagesVerificationAllowlist   []string
	// Report is called with each failure that concerns no single Pod and is retried: the Node
	// cannot be registered, the runtime hangs. Optional.
	Report func(error)
	// Metrics are served under /metrics besides the agent's own. Optional.
	Metrics []prometheus.Collector
	// Ready is called once, when the Node is registered and Ready. Optional.
	Ready func()
}

// owned are the labels of the agent's sandboxes and containers; none if it owns all.
func (c Config) owned() map[string]string {
	if !c.SharedRuntime {
		return nil
	}
	return cri.OwnedBy(c.Owner)
}
