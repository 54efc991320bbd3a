// Package parts says what a server and a node agent are made of: which parts, configured how, after which others. It
// starts nothing; package supervisor does.
package parts

import (
	"context"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/cmd/flyball/internal/board"
	"flyball.dev/cmd/flyball/internal/bundle"
	"flyball.dev/cmd/flyball/internal/config"
	"flyball.dev/cmd/flyball/internal/instance"
	"flyball.dev/cmd/flyball/internal/logging"
	"flyball.dev/cmd/flyball/internal/supervisor"
	embedded "flyball.dev/config"
	"flyball.dev/containerd"
	"flyball.dev/controllers"
	"flyball.dev/controlplane"
	"flyball.dev/join"
	"flyball.dev/network"
)

// Set makes the parts of one machine.
type Set struct {
	Config *config.Config
	Bundle bundle.Bundle
	// Joined is the cluster of another machine that this one has joined; nil if the server is here.
	Joined *join.Cluster
	// Proxy are the variables of the environment, as NAME=VALUE, that say through which proxy to pull images.
	Proxy []string
	// Restart restarts this program in the same process, after an error that the control plane cannot
	// go on after; a program that was asked to stop ends instead. It does not return.
	Restart func(error)

	// metrics are served by the node agent besides its own.
	metrics []prometheus.Collector
}

// Rows of the board that other packages look for.
const (
	// Kubelet is up when the Node is Ready.
	Kubelet = "kubelet"
	// APIAccess is the API server as a node agent without a server sees it.
	APIAccess = "api access"
)

// Server is what `flyball server` runs.
func (s Set) Server() []supervisor.Part {
	return []supervisor.Part{s.controlPlane(), s.controllers()}
}

// Agent is what `flyball agent` runs.
func (s Set) Agent() []supervisor.Part {
	before, serving := []supervisor.Part{s.apiAccess()}, s.serving()
	if s.Joined != nil {
		client := renewFailures("kubelet_certificate_manager_client_expiration_renew_errors", "client certificate")
		server := renewFailures("kubelet_server_expiration_renew_errors", "serving certificate")
		certificates := &join.Certificates{
			Dir: s.AgentDir(), NodeName: s.Config.NodeName, NodeIPs: []netip.Addr{s.Config.NodeAddr},
			ClientFailures: client, ServingFailures: server,
		}
		s.metrics = []prometheus.Collector{client, server}
		before, serving = append(before, s.certificates(certificates)), certificates.GetCertificate
	}
	return s.agent(before, serving, "", APIAccess, APIAccess)
}

// renewFailures counts what the alerts of the field ask for under this name.
func renewFailures(name, certificate string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: "Number of renewals of the node agent's " + certificate + " that failed."})
}

// Up is what `flyball up` runs: both. The node's own parts wait until etcd is up, because until then the control plane
// may yet refuse the data directory, and nothing is to be half started then.
func (s Set) Up() []supervisor.Part {
	return s.agent(s.Server(), s.serving(), controlplane.PartEtcd, controlplane.PartAPIServer, controlplane.PartBootstrap)
}

func (s Set) agent(before []supervisor.Part, serving getCertificate, first, api, bootstrapped string) []supervisor.Part {
	before = append(before, s.routes(first))
	if s.Config.CRIEndpoint == "" {
		before = append(before, s.containerd(first), s.images())
	}
	return append(before, s.network(api), s.kubelet(api, serving), s.proxy(bootstrapped), s.dns(bootstrapped))
}

func (s Set) controlPlane() supervisor.Part {
	c := s.Config
	return supervisor.Part{
		Name: "control plane",
		Rows: []string{
			controlplane.PartEtcd, controlplane.PartAPIServer, controlplane.PartScheduler,
			controlplane.PartControllerManager, controlplane.PartBootstrap,
			controlplane.PartApprover, controlplane.PartCertificates, controlplane.PartDisk,
		},
		Fatal: true,
		Run: func(ctx context.Context, report supervisor.Report) error {
			return controlplane.Run(ctx, controlplane.Config{
				DataDir: c.DataDir, RunDir: instance.RunDir,
				NodeName: c.NodeName, NodeIPs: []netip.Addr{c.NodeAddr},
				BindAddress: c.BindAddr, Port: c.Port,
				ClusterCIDRs: []netip.Prefix{c.ClusterPrefix}, ServiceCIDRs: []netip.Prefix{c.ServicePrefix},
				ClusterDNS: []netip.Addr{c.DNSAddr}, ClusterDomain: c.ClusterDomain,
				AdminKubeconfig: instance.AdminKubeconfig,
				LogFile:         logging.Path(c.DataDir),
				OutOfSpace:      s.Restart,
				Manifests:       s.manifests(),
				Progress: func(part, state string, err error) {
					if state == controlplane.StateDown && err == nil {
						state = string(board.Stopped)
					}
					report(part, board.State(state), err)
				},
			})
		},
	}
}

// manifests are what the cluster has from the start. Kinds that the server does not reconcile are whoever's that does.
func (s Set) manifests() []fs.FS {
	if slices.Contains(s.Config.ControllerKinds, v1alpha1.GroupVersion) {
		return []fs.FS{embedded.CRDs, embedded.RBAC}
	}
	return []fs.FS{embedded.RBAC}
}

func (s Set) controllers() supervisor.Part {
	const name = "controllers"
	return supervisor.Part{Name: name, After: []string{controlplane.PartBootstrap}, Run: func(ctx context.Context, report supervisor.Report) error {
		client, err := Client(filepath.Join(s.Config.DataDir, "server", "kubeconfig", "controllers.kubeconfig"), name)
		if err != nil {
			return err
		}
		return controllers.Run(ctx, controllers.Config{Client: client, Kinds: s.Config.ControllerKinds, Ready: up(report, name)})
	}}
}

// Containerd is the configuration of the bundled container runtime.
func (s Set) Containerd() containerd.Config {
	state := filepath.Join(instance.RunDir, "containerd")
	return containerd.Config{
		BinDir:        s.Bundle.Dir,
		RootDir:       filepath.Join(s.Config.DataDir, "containerd"),
		StateDir:      state,
		Socket:        filepath.Join(state, "containerd.sock"),
		CNIBinDir:     s.Bundle.CNIDir(),
		CNIConfDir:    filepath.Join(instance.RunDir, "cni"),
		LogFile:       filepath.Join(s.Config.DataDir, "log", "containerd.log"),
		SandboxImage:  bundle.PauseImage,
		RegistryHosts: filepath.Join(s.Config.DataDir, "registries"),
		Proxy:         s.pullProxy(),
	}
}

// CRIEndpoint is the socket of the container runtime.
func (s Set) CRIEndpoint() string {
	if s.Config.CRIEndpoint != "" {
		return s.Config.CRIEndpoint
	}
	return "unix://" + s.Containerd().Socket
}

// RuntimeAnswers tells whether a container runtime listens there.
func (s Set) RuntimeAnswers() bool {
	conn, err := net.Dial("unix", strings.TrimPrefix(s.CRIEndpoint(), "unix://"))
	if err != nil {
		return false
	}
	conn.Close()
	return true
}

// Network is the configuration of the node network, without a client.
func (s Set) Network() network.Config {
	c := network.Config{
		NodeName:     s.Config.NodeName,
		ClusterCIDRs: []netip.Prefix{s.Config.ClusterPrefix}, ServiceCIDRs: []netip.Prefix{s.Config.ServicePrefix},
		ClusterDNS: []netip.Addr{s.Config.DNSAddr},
		CNIConfDir: filepath.Join(instance.RunDir, "cni"),
		IPAMDir:    filepath.Join(instance.RunDir, "cni", "networks"),
	}
	if s.Config.CRIEndpoint != "" {
		c.CNIConfDir, c.CNIBinDir, c.PluginDir = s.Config.CNIConfDir, s.Config.CNIBinDir, s.Bundle.CNIDir()
	}
	return c
}

func up(report supervisor.Report, row string) func() {
	return func() { report(row, board.Up, nil) }
}

func after(names ...string) []string {
	var out []string
	for _, n := range names {
		if n != "" {
			out = append(out, n)
		}
	}
	return out
}

// Client reads a kubeconfig. A part's own rate limit would only slow the cluster down: kube-apiserver's priority and
// fairness shares the server out between all clients.
func Client(kubeconfig, part string) (*rest.Config, error) {
	c, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	c.QPS = -1
	c.UserAgent = "flyball-" + part
	c.Timeout = 0 // watches last
	return c, nil
}

// retryEvery is how often an agent without a server asks whether the API server is there. There is nobody who could
// tell it.
const retryEvery = 250 * time.Millisecond
