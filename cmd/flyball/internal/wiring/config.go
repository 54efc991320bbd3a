//go:build linux

// Package wiring says what a server and a node consist of: their components, how each is configured, and what it needs of
// others. Package supervisor runs them.
package wiring

import (
	"net"
	"path/filepath"
	"strings"

	"flyball.dev/apis/config"
	"flyball.dev/containerd"
	"flyball.dev/host/bundle"
	"flyball.dev/host/launch"
	"flyball.dev/join"
	"flyball.dev/network"
)

// PodLogsDir is where log shippers read the logs of Pods.
const PodLogsDir = "/var/log/pods"

// Config is what the components of one process are configured from.
type Config struct {
	*config.Config
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

// AgentDir has the credentials of the node.
func (c Config) AgentDir() string { return filepath.Join(c.DataDir, "agent") }

// kubeletDir has the files of Pods.
func (c Config) kubeletDir() string { return filepath.Join(c.DataDir, "kubelet") }

func (c Config) cniDir() string { return filepath.Join(c.RunDir, "cni") }

func (c Config) credentials() join.Credentials { return join.Credentials{Dir: c.AgentDir()} }

// Containerd configures the bundled container runtime.
func (c Config) Containerd() containerd.Config {
	state := filepath.Join(c.RunDir, "containerd")
	return containerd.Config{
		BinDir: c.Bundle.Dir, RootDir: filepath.Join(c.DataDir, "containerd"), StateDir: state,
		Socket:    filepath.Join(state, "containerd.sock"),
		CNIBinDir: c.Bundle.CNIDir(), CNIConfDir: c.cniDir(),
		LogFile:      filepath.Join(c.DataDir, "log", "containerd.log"),
		SandboxImage: bundle.PauseImage, RegistryHosts: filepath.Join(c.DataDir, "registries"),
		Proxy: containerd.PullProxy(c.Proxy, c.NodeIP, c.ClusterCIDR, c.ServiceCIDR, ".svc", "."+c.ClusterDomain),
	}
}

// criEndpoint is the socket of the container runtime.
func (c Config) criEndpoint() string {
	if c.CRIEndpoint != "" {
		return c.CRIEndpoint
	}
	return "unix://" + c.Containerd().Socket
}

// runtimeAnswers reports whether a container runtime listens there.
func (c Config) runtimeAnswers() bool {
	conn, err := net.Dial("unix", strings.TrimPrefix(c.criEndpoint(), "unix://"))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// network configures the node network, without a client.
func (c Config) network() network.Config {
	n := network.Config{
		NodeName: c.NodeName, ClusterCIDR: c.ClusterPrefixes[0], ServiceCIDR: c.ServicePrefixes[0], ClusterDNS: c.DNSAddrs[0],
		CNIConfDir: c.cniDir(), IPAMDir: filepath.Join(c.cniDir(), "networks"),
	}
	if c.CRIEndpoint != "" {
		n.CNIConfDir, n.CNIBinDir, n.PluginDir = c.CNIConfDir, c.CNIBinDir, c.Bundle.CNIDir()
	}
	return n
}
