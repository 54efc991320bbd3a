package controlplane

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/samber/lo"
)

// The components, as Config.Progress gets them, in the order in which they start.
const (
	PartEtcd              = "etcd"
	PartAPIServer         = "kube-apiserver"
	PartScheduler         = "kube-scheduler"
	PartControllerManager = "kube-controller-manager"
	PartBootstrap         = "bootstrap"
	PartApprover          = "csr-approver"
	PartCertificates      = "certificates"
	PartDisk              = "disk" // down while etcd's file system has no space
)

// The states of a component, as Config.Progress gets them.
const (
	StateStarting = "starting"
	StateUp       = "up"
	StateDown     = "down"
)

// Config says what Run starts. All fields are required unless their comment says otherwise.
type Config struct {
	// DataDir holds what must survive a reboot. Only this package writes DataDir/server.
	// DataDir/agent receives the node agent's credentials.
	DataDir string
	// RunDir holds etcd's socket, RunDir/etcd/client.sock. The path must be short (unix(7): 107
	// bytes).
	RunDir string
	// NodeName is the node whose agent gets credentials.
	NodeName string
	// NodeIPs are the node's addresses, one or two. The API is advertised at the first.
	NodeIPs []netip.Addr
	// BindAddress and Port are where kube-apiserver listens.
	BindAddress netip.Addr
	Port        int
	// ClusterCIDRs are the ranges of Pod addresses, one or two; each node gets a /24 (IPv6: /64) of
	// each. ServiceCIDRs are those of Services, with the same address families in the same order.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix
	// ClusterDNS are the addresses of the Service kube-system/kube-dns, one in each of
	// ServiceCIDRs.
	ClusterDNS []netip.Addr
	// ClusterDomain is the DNS domain of Services.
	ClusterDomain string
	// OtherServers says that other servers serve this cluster too. An only server need not renew
	// its presence in etcd.
	OtherServers bool
	// AdminKubeconfig is where the administrator's kubeconfig is written, mode 0600. Empty: only in
	// DataDir.
	AdminKubeconfig string
	// Manifests are applied once kube-apiserver is ready: every .yaml file in them except
	// kustomizations. Optional.
	Manifests []fs.FS
	// Defaults are created after Manifests, once in the life of the cluster: what users change or
	// delete of them stays so. Optional.
	Defaults []fs.FS
	// LogFile is the log file of the process. A little space is reserved for it, to log why writes
	// are refused. Optional.
	LogFile string
	// OutOfSpace is called when etcd could not write and cannot go on in this process, also while
	// Run stops. The next start finds all acknowledged writes. It must not return. Optional:
	// without it, the process panics.
	OutOfSpace func(error)
	// Progress is called on every change of a component's state, from several goroutines. Optional.
	Progress func(component string, state string, err error)

	certificateLife time.Duration // zero means pki.LeafLife
	unguarded       bool          // never refuse writes or reserve space
}

func (c Config) validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(filepath.IsAbs(c.DataDir), "the data directory %q is not an absolute path", c.DataDir)
	check(filepath.IsAbs(c.RunDir), "the run-time directory %q is not an absolute path", c.RunDir)
	check(len(c.etcdSocket()) <= 107, "the run-time directory %q is too long for unix sockets; choose a shorter one", c.RunDir)
	check(c.NodeName != "", "the node has no name")
	check(len(c.NodeIPs) == 1, "the node has %d addresses instead of one", len(c.NodeIPs))
	for _, ip := range c.NodeIPs {
		check(ip.IsValid() && !ip.IsUnspecified() && !ip.IsLoopback(), "Pods cannot reach the node's address %q", ip)
	}
	check(c.BindAddress.IsValid(), "the address to listen on %q is not an IP address", c.BindAddress)
	check(c.Port > 0 && c.Port < 1<<16, "the API port %d is not between 1 and 65535", c.Port)
	one := len(c.ClusterCIDRs) == 1 && len(c.ServiceCIDRs) == 1 && len(c.ClusterDNS) == 1
	check(one, "there must be one cluster CIDR, one Service CIDR and one DNS address")
	if one {
		pods, services, dns := c.ClusterCIDRs[0], c.ServiceCIDRs[0], c.ClusterDNS[0]
		check(pods.IsValid() && services.IsValid(), "the cluster CIDR %q and the Service CIDR %q must both be CIDRs", pods, services)
		check(!pods.Overlaps(services), "the cluster CIDR %s and the Service CIDR %s overlap", pods, services)
		check(pods.Bits() <= nodeCIDRBits(pods), "the cluster CIDR %s is too small: each node takes a /%d of it", pods, nodeCIDRBits(pods))
		check(services.Contains(dns), "the DNS address %s is not within the Service CIDR %s", dns, services)
	}
	check(c.ClusterDomain != "", "the cluster domain is empty")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("checking the control plane's configuration: %w", err)
	}
	return nil
}

func (c Config) server(elem ...string) string {
	return filepath.Join(append([]string{c.DataDir, "server"}, elem...)...)
}

func (c Config) kubeconfig(component string) string {
	return c.server("kubeconfig", component+".kubeconfig")
}

// etcdDir is the directory that etcd writes to. It can be a mount of its own.
func (c Config) etcdDir() string { return c.server("etcd") }

func (c Config) database() string { return filepath.Join(c.etcdDir(), "member", "snap", "db") }

func (c Config) etcdSocket() string { return filepath.Join(c.RunDir, "etcd", "client.sock") }

// nodeCIDRBits is the prefix length of the range that one node gets of a cluster CIDR: 256
// addresses, or upstream's /64.
func nodeCIDRBits(cluster netip.Prefix) int {
	return lo.Ternary(cluster.Addr().Is6(), 64, 24)
}

// apiServiceIPs are the addresses of the Service default/kubernetes: always the first of each
// range.
func (c Config) apiServiceIPs() []netip.Addr {
	return lo.Map(c.ServiceCIDRs, func(r netip.Prefix, _ int) netip.Addr { return r.Masked().Addr().Next() })
}

// URL is where other hosts reach kube-apiserver.
func (c Config) URL() string {
	return "https://" + netip.AddrPortFrom(c.NodeIPs[0], uint16(c.Port)).String()
}

// localURL is where the components on this host reach kube-apiserver.
func (c Config) localURL() string {
	host := c.BindAddress
	switch {
	case host.IsUnspecified() && host.Is4():
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case host.IsUnspecified():
		host = netip.IPv6Loopback()
	}
	return "https://" + netip.AddrPortFrom(host, uint16(c.Port)).String()
}

func (c Config) port() string { return strconv.Itoa(c.Port) }

func (c Config) progress(component, state string, err error) {
	if c.Progress != nil {
		c.Progress(component, state, err)
	}
}

// commas joins addresses or ranges as upstream's flags, and our files, have them.
func commas[T fmt.Stringer](list []T) string {
	return strings.Join(lo.Map(list, func(item T, _ int) string { return item.String() }), ",")
}
