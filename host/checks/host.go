//go:build linux

// Package checks finds what a host lacks to run Flyball, before anything is started. Observe reads
// the host; plan_checks.go is pure: it decides what is missing and what the remedy is.
package checks

import (
	"net/netip"

	"flyball.dev/apis/config"
	"flyball.dev/host/instance"
	"flyball.dev/nft"
)

// Want is what Flyball is about to use.
type Want struct {
	// Ports to listen on, by what they are for.
	Ports map[string]int
	// Ranges that must be free, by their name in the configuration.
	Ranges map[string]netip.Prefix
	// OwnInterfaces and OwnAddresses may be there already: an earlier run of Flyball left them.
	OwnInterfaces []string
	OwnAddresses  []netip.Addr
	// OwnRoutes are the destinations of routes that Flyball made.
	OwnRoutes []netip.Prefix
	// NodeIP must be an address of this host.
	NodeIP netip.Addr
	// DataDir must be writable, and so must RootDir, the node agent's directory, which must not be
	// another node's. It is empty where there is no node agent.
	DataDir, RootDir string
	// Running says that Flyball runs already, so that its own ports and ranges are no finding.
	Running bool
	// BundledRuntime says that the bundled containerd is used, which needs the Files.
	BundledRuntime bool
	// Files must exist.
	Files []string
}

// NewWant is what a process with the role uses by its configuration. runDir and files are those of
// instance and bundle.
func NewWant(c *config.Config, role instance.Role, runDir string, files []string) Want {
	w := Want{
		Ports: map[string]int{}, NodeIP: c.NodeAddrs[0], DataDir: c.DataDir,
		Running:      len(instance.Running(runDir, role)) > 0,
		Ranges:       map[string]netip.Prefix{"clusterCIDR": c.ClusterPrefixes[0], "serviceCIDR": c.ServicePrefixes[0]},
		OwnAddresses: c.DNSAddrs,
	}
	if role != instance.Agent {
		w.Ports["API server"] = c.Port
	}
	if role != instance.Server {
		w.Ports["node agent"] = c.Kubelet.Port
		w.RootDir = c.Kubelet.RootDir
		w.BundledRuntime, w.Files = c.CRIEndpoint == "", files
	}
	return w
}

// Host is what was observed. Observe fills in everything but Kernel and Firewall, which the caller
// reads from the components that know them.
type Host struct {
	// EUID is the effective user.
	EUID int
	// Capabilities are those in effect, as in /proc/self/status.
	Capabilities uint64
	// CgroupVersion is 1 or 2, or 0 if no cgroup hierarchy is mounted.
	CgroupVersion int
	// Controllers are the cgroup controllers that can be used.
	Controllers []string
	// Overlay is why overlayfs cannot be mounted, nil if it can.
	Overlay error
	// Kernel has an entry for each other kernel feature that was tried; nil if it works.
	Kernel map[string]error
	// Ports in use, of those that are wanted.
	Ports map[int]Listener
	// Addresses and Routes of the host.
	Addresses []Address
	Routes    []Route
	// Disk is what is known of the data directory's file system, RootDisk of the one that has, or
	// will have, what is in the root directory.
	Disk, RootDisk Disk
	// RootDir is why the node agent must not use the root directory; zero if it may.
	RootDir Obstacle
	// Firewall is what the host's packet filter does with packets of Pods, as far as it can be
	// read.
	Firewall Firewall
	// FirewallError is why it cannot be read in whole.
	FirewallError error
	// MissingFiles are the wanted files that do not exist.
	MissingFiles []string
}

// Firewall is what the host's packet filter does with packets of Pods.
type Firewall struct {
	// Forward are the chains that drop forwarded packets, Input those that drop packets of Pods to
	// the host itself.
	Forward, Input []nft.BaseChain
	// Legacy is set if iptables-legacy has a filter, which Flyball can neither read nor change.
	Legacy bool
}

// Obstacle is why something cannot be used, and what to do about it.
type Obstacle struct{ Detail, Remedy string }

// Listener is a process that listens on a port.
type Listener struct {
	// PID and Name of the process; 0 and empty if they could not be found.
	PID  int
	Name string
}

// Address is an address of an interface.
type Address struct {
	Interface string
	Prefix    netip.Prefix
}

// Route is a route of the main table.
type Route struct {
	// Interface is empty for a route that leads nowhere (unreachable, blackhole, prohibit).
	Interface string
	Prefix    netip.Prefix
}

// Disk is what is known of a directory's file system.
type Disk struct {
	// FreeBytes and FreeInodes are what an ordinary user could still take.
	FreeBytes, FreeInodes uint64
	// Inodes is zero on file systems that do not count them.
	Inodes uint64
	// WriteError is why nothing can be written.
	WriteError error
}

// Finding is the outcome of one check.
type Finding struct {
	// Name of what was checked.
	Name string `json:"name"`
	// OK is set when nothing is missing.
	OK bool `json:"ok"`
	// Required findings keep Flyball from starting when they are not OK; others cost a feature.
	Required bool `json:"required"`
	// Detail says what was found.
	Detail string `json:"detail,omitempty"`
	// Remedy says what to do about it.
	Remedy string `json:"remedy,omitempty"`
}
