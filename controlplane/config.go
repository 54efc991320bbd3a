package controlplane

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"
)

// The parts that Config.Progress speaks of, in the order in which they start.
const (
	PartEtcd              = "etcd"
	PartAPIServer         = "kube-apiserver"
	PartScheduler         = "kube-scheduler"
	PartControllerManager = "kube-controller-manager"
	PartBootstrap         = "bootstrap"
	PartApprover          = "csr-approver"
	PartCertificates      = "certificates"
	PartDisk              = "disk" // down while the file system of etcd's directory has no space
)

// The states that Config.Progress speaks of.
const (
	StateStarting = "starting"
	StateUp       = "up"
	StateDown     = "down"
)

// Config says what Run starts. All fields are required unless their comment says otherwise.
type Config struct {
	// DataDir holds what must survive: DataDir/server is ours alone, DataDir/agent receives the node agent's credentials.
	DataDir string
	// RunDir holds what need not survive: RunDir/etcd has etcd's socket. Its path must be short (unix(7): 107 bytes).
	RunDir string
	// NodeName is the node whose agent gets credentials, NodeIP the address that the API is advertised at.
	NodeName string
	NodeIP   netip.Addr
	// BindAddress and Port are where kube-apiserver listens.
	BindAddress netip.Addr
	Port        int
	// ClusterCIDR is where Pods get addresses from, a /24 per node; ServiceCIDR where Services get theirs from.
	ClusterCIDR, ServiceCIDR netip.Prefix
	// ClusterDNS is the address of the Service kube-system/kube-dns, within ServiceCIDR; ClusterDomain its zone.
	ClusterDNS    netip.Addr
	ClusterDomain string
	// OtherServers says that other servers serve this cluster too. A server that is alone need not keep writing to etcd that
	// it is there.
	OtherServers bool
	// AdminKubeconfig is where the kubeconfig of the administrator is written, mode 0600. Empty: nowhere else than in DataDir.
	AdminKubeconfig string
	// Manifests are applied once kube-apiserver is ready: every .yaml file in them except for kustomizations. Optional.
	Manifests []fs.FS
	// LogFile is where the process logs, which gets a little space in reserve to log why writes are refused. Optional.
	LogFile string
	// OutOfSpace is called when etcd could not write and therefore cannot go on in this process, also
	// while Run stops: the next start finds all that was acknowledged. It must not return. Optional:
	// without it, the process panics.
	OutOfSpace func(error)
	// Progress is told of every change of a part's state, from several goroutines. Optional.
	Progress func(part string, state string, err error)

	id              string        // of the cluster, from cluster.yaml
	certificateLife time.Duration // zero means pki.LeafLife
	unguarded       bool          // nothing is refused or reserved for want of space
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
	check(c.NodeIP.IsValid() && !c.NodeIP.IsUnspecified() && !c.NodeIP.IsLoopback(), "the node's address %q is not one that Pods could reach", c.NodeIP)
	check(c.BindAddress.IsValid(), "the address to listen on %q is not an IP address", c.BindAddress)
	check(c.Port > 0 && c.Port < 1<<16, "the API port %d is not between 1 and 65535", c.Port)
	check(c.ClusterCIDR.IsValid() && c.ServiceCIDR.IsValid(), "the cluster CIDR %q and the Service CIDR %q must both be CIDRs", c.ClusterCIDR, c.ServiceCIDR)
	check(!c.ClusterCIDR.Overlaps(c.ServiceCIDR), "the cluster CIDR %s and the Service CIDR %s overlap", c.ClusterCIDR, c.ServiceCIDR)
	check(c.ClusterCIDR.Bits() <= c.nodeCIDRBits(), "the cluster CIDR %s is too small: each node takes a /%d of it", c.ClusterCIDR, c.nodeCIDRBits())
	check(c.ServiceCIDR.Contains(c.ClusterDNS), "the DNS address %s is not within the Service CIDR %s", c.ClusterDNS, c.ServiceCIDR)
	check(c.ClusterDomain != "", "the cluster domain is empty")
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("checking the control plane's configuration: %w", err)
	}
	return nil
}

func (c Config) server(elem ...string) string {
	return filepath.Join(append([]string{c.DataDir, "server"}, elem...)...)
}

// etcdDir has all that etcd writes. It can be a mount of its own.
func (c Config) etcdDir() string { return c.server("etcd") }

func (c Config) database() string { return filepath.Join(c.etcdDir(), "member", "snap", "db") }

func (c Config) etcdSocket() string { return filepath.Join(c.RunDir, "etcd", "client.sock") }

// nodeCIDRBits is the prefix length of the part of ClusterCIDR that one node gets: 256 addresses, or upstream's /64.
func (c Config) nodeCIDRBits() int {
	if c.ClusterCIDR.Addr().Is6() {
		return 64
	}
	return 24
}

// apiServiceIP is the address of the Service default/kubernetes: always the first of the range.
func (c Config) apiServiceIP() netip.Addr { return c.ServiceCIDR.Masked().Addr().Next() }

// URL is where other machines reach kube-apiserver.
func (c Config) URL() string {
	return "https://" + netip.AddrPortFrom(c.NodeIP, uint16(c.Port)).String()
}

// localURL is where the parts on this machine reach kube-apiserver.
func (c Config) localURL() string { return "https://" + c.localAddress() }

func (c Config) localAddress() string {
	host := c.BindAddress
	switch {
	case host.IsUnspecified() && host.Is4():
		host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	case host.IsUnspecified():
		host = netip.IPv6Loopback()
	}
	return netip.AddrPortFrom(host, uint16(c.Port)).String()
}

func (c Config) port() string { return strconv.Itoa(c.Port) }

func (c Config) progress(part, state string, err error) {
	if c.Progress != nil {
		c.Progress(part, state, err)
	}
}
