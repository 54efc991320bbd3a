package v1alpha1

import (
	"cmp"
	"net/netip"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"

	"flyball.dev/apis/apps/v1alpha1"
)

// The defaults of a cluster.
const (
	DefaultDataDir       = "/var/lib/flyball"
	DefaultBindAddress   = "0.0.0.0"
	DefaultPort          = 6443
	DefaultClusterCIDR   = "10.42.0.0/16"
	DefaultServiceCIDR   = "10.43.0.0/16"
	DefaultClusterDomain = "cluster.local"
	DefaultRootDir       = "/var/lib/kubelet"
	DefaultKubeletPort   = 10250
	DefaultMaxPods       = 110
	// Where a container runtime reads its CNI configuration and plugins by default.
	DefaultCNIConfDir = "/etc/cni/net.d"
	DefaultCNIBinDir  = "/opt/cni/bin"

	// dnsOffset is where upstream's installers put the cluster DNS in the Service range, and where
	// people expect it.
	dnsOffset = 10
)

// allKinds are the API groups and versions that Flyball has loops for.
var allKinds = []string{appsv1.SchemeGroupVersion.String(), v1alpha1.GroupVersion.String()}

// HostDefaults are the defaults that come from the host.
type HostDefaults struct {
	NodeName string
	NodeIP   netip.Addr
}

// SetDefaults fills what is empty.
func SetDefaults(c *FlyballConfiguration, host HostDefaults) {
	c.APIVersion, c.Kind = GroupVersion, Kind
	setDefault(&c.DataDir, DefaultDataDir)
	setDefault(&c.NodeName, host.NodeName)
	if host.NodeIP.IsValid() {
		setDefault(&c.NodeIP, host.NodeIP.String())
	}
	setDefault(&c.BindAddress, DefaultBindAddress)
	setDefault(&c.Port, DefaultPort)
	setDefault(&c.ClusterCIDR, DefaultClusterCIDR)
	setDefault(&c.ServiceCIDR, DefaultServiceCIDR)
	setDefault(&c.ClusterDomain, DefaultClusterDomain)
	if prefix, err := netip.ParsePrefix(c.ServiceCIDR); err == nil {
		setDefault(&c.ClusterDNS, nth(prefix, dnsOffset).String())
	}
	if c.CRIEndpoint != "" {
		setDefault(&c.CNIConfDir, DefaultCNIConfDir)
		setDefault(&c.CNIBinDir, DefaultCNIBinDir)
	}
	if len(c.Controllers.Kinds) == 0 {
		c.Controllers.Kinds = slices.Clone(allKinds)
	}
	setDefault(&c.Kubelet.RootDir, DefaultRootDir)
	setDefault(&c.Storage.Driver, new(true))
	setDefault(&c.Storage.Snapshots, new(true))
	setDefault(&c.Kubelet.Port, DefaultKubeletPort)
	setDefault(&c.Kubelet.MaxPods, DefaultMaxPods)
	setDefault(&c.Kubelet.ImagePullCredentialsVerificationPolicy, string(kubeletconfig.NeverVerifyPreloadedImages))
}

// Override replaces the fields that can be given as flags, where they are set in flags.
func (c *FlyballConfiguration) Override(flags FlyballConfiguration) {
	c.DataDir, c.NodeName = cmp.Or(flags.DataDir, c.DataDir), cmp.Or(flags.NodeName, c.NodeName)
	c.NodeIP = cmp.Or(flags.NodeIP, c.NodeIP)
	c.ClusterCIDR, c.ServiceCIDR = cmp.Or(flags.ClusterCIDR, c.ClusterCIDR), cmp.Or(flags.ServiceCIDR, c.ServiceCIDR)
	c.ClusterDomain, c.CRIEndpoint = cmp.Or(flags.ClusterDomain, c.ClusterDomain), cmp.Or(flags.CRIEndpoint, c.CRIEndpoint)
	c.Server, c.Token = cmp.Or(flags.Server, c.Server), cmp.Or(flags.Token, c.Token)
	c.Kubelet.RootDir = cmp.Or(flags.Kubelet.RootDir, c.Kubelet.RootDir)
	c.Port, c.Logging.Verbosity = cmp.Or(flags.Port, c.Port), cmp.Or(flags.Logging.Verbosity, c.Logging.Verbosity)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// nth is the address n after the first of the prefix.
func nth(prefix netip.Prefix, n int) netip.Addr {
	addr := prefix.Masked().Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}
