//go:build linux

// Package wiring says what a server and a node consist of: their components, how each is
// configured, and what it needs of others. Package supervisor runs them.
package wiring

import (
	"path/filepath"

	"flyball.dev/apis/config"
	"flyball.dev/containerd"
	"flyball.dev/host/bundle"
	"flyball.dev/host/instance"
	"flyball.dev/host/launch"
	"flyball.dev/host/rootdir"
	"flyball.dev/join"
	"flyball.dev/network"
)

// PodLogsDir is where log shippers read the logs of Pods.
const PodLogsDir = "/var/log/pods"

// Config is what the components of one process are configured from.
type Config struct {
	*config.Config
	// Role of the process.
	Role instance.Role
	// RunDir is the directory of run-time files.
	RunDir string
	Bundle bundle.Bundle
	// Joined is the cluster that this host has joined; nil if the server is on this host.
	Joined *join.Cluster
	// Proxy are the variables, as NAME=VALUE, of the proxy through which images are pulled.
	Proxy []string
	// Restarter restarts this program when etcd has no space and cannot go on.
	Restarter *launch.Restarter
}

// rootDirs are the root directory of the node agent, and what leads to it.
func (c Config) rootDirs() rootdir.Dirs {
	return rootdir.Dirs{Root: c.Kubelet.RootDir, Data: c.DataDir}
}

// credentials are those of the node.
func (c Config) credentials() join.Credentials {
	return join.Credentials{Dir: filepath.Join(c.DataDir, "agent")}
}

// Containerd configures the bundled container runtime.
func (c Config) Containerd() containerd.Config {
	cfg := containerd.Default(c.Bundle.Dir, c.DataDir, c.RunDir)
	cfg.SandboxImage = bundle.PauseImage
	cfg.Proxy = containerd.PullProxy(c.Proxy, c.NodeIP, c.ClusterCIDR, c.ServiceCIDR, ".svc", "."+c.ClusterDomain)
	return cfg
}

// criEndpoint is the socket of the container runtime.
func (c Config) criEndpoint() string {
	if c.CRIEndpoint != "" {
		return c.CRIEndpoint
	}
	return "unix://" + c.Containerd().Socket
}

// network configures the node network, without a client.
func (c Config) network() network.Config {
	n := network.Config{
		NodeName: c.NodeName, ClusterCIDRs: c.ClusterPrefixes, ServiceCIDRs: c.ServicePrefixes, ClusterDNS: c.DNSAddrs,
		CNIConfDir: filepath.Join(c.RunDir, "cni"), IPAMDir: filepath.Join(c.RunDir, "cni", "networks"),
	}
	if c.CRIEndpoint != "" {
		n.CNIConfDir, n.CNIBinDir, n.PluginDir = c.CNIConfDir, c.CNIBinDir, c.Bundle.CNIDir()
	}
	return n
}
