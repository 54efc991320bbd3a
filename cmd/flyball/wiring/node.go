//go:build linux

package wiring

import (
	"context"
	"crypto/tls"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/component-base/version"
	"k8s.io/utils/ptr"

	"flyball.dev/containerd"
	"flyball.dev/dns"
	"flyball.dev/host/propagation"
	"flyball.dev/host/status"
	"flyball.dev/host/supervisor"
	"flyball.dev/join"
	"flyball.dev/kubelet"
	"flyball.dev/network"
	"flyball.dev/proxy"
	"flyball.dev/storage"
)

// serving is what the kubelet's server shows and serves besides its own metrics.
type serving struct {
	certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	metrics     []prometheus.Collector
	// awaitStorage waits until the storage driver has credentials. Nil if it has them from the start.
	awaitStorage func(context.Context) error
}

// agent adds the components of a node whose server is another process.
func (c Config) agent(s *supervisor.Supervisor) {
	access := s.Add("api access", apiAccess{c.credentials()})
	shown := serving{certificate: c.credentials().GetCertificate}
	if c.Joined != nil {
		renewed, failures := join.NewCertificates(c.credentials().Dir, c.NodeName, c.NodeAddrs)
		s.Add("certificates", certificates{renewed}, access)
		shown = serving{renewed.GetCertificate, failures, renewed.AwaitStorage}
	}
	c.node(s, cluster{api: access, bootstrap: access}, shown)
}

// node adds the components of a node. None starts before etcd has accepted the data directory.
func (c Config) node(s *supervisor.Supervisor, of cluster, shown serving) {
	routes := s.Add("routes", routes{c}, of.etcd)
	root := s.Add("root directory", rootDirectory{c}, of.etcd)
	var images *status.Entry
	if c.CRIEndpoint == "" {
		runtime := s.Add("containerd", bundledRuntime{c}, root)
		images = s.Add("images", preloadedImages{c}, runtime)
	}
	s.Add("network", podNetwork{c}, routes, of.api)
	agent := s.Add("kubelet", nodeAgent{c, shown}, routes, root, of.api, images).Require()
	if ptr.Deref(c.Storage.Driver, true) {
		s.Add("storage", storageDriver{c, shown.awaitStorage}, agent, of.bootstrap)
	}
	s.Add("proxy", serviceProxy{c}, routes, of.bootstrap)
	s.Add("dns", clusterDNS{c}, routes, of.bootstrap)
}

// apiAccess is up once the API server of another process answers.
type apiAccess struct{ join.Credentials }

func (a apiAccess) Run(ctx context.Context, e *status.Entry) error {
	return a.Credentials.Run(ctx, e.Up, e.Report)
}

// certificates renews those of a joined host. The serving one is issued after the Node registers.
type certificates struct{ *join.Certificates }

func (c certificates) Run(ctx context.Context, e *status.Entry) error {
	return c.Certificates.Run(ctx, e.Up, e.Report)
}

// routes prepares the host before anything of the node sends a packet.
type routes struct{ Config }

func (c routes) Run(ctx context.Context, e *status.Entry) error {
	if err := network.Setup(c.network()); err != nil {
		return err
	}
	e.Up()
	<-ctx.Done()
	return nil
}

// rootDirectory prepares the directory that the node agent and drivers keep their files in. The
// mounts that it lies on are shared before the runtime makes a container.
type rootDirectory struct{ Config }

func (c rootDirectory) Run(ctx context.Context, e *status.Entry) error {
	if err := propagation.Share(c.DataDir, c.Kubelet.RootDir); err != nil {
		return err
	}
	if err := c.rootDirs().Prepare(); err != nil {
		return err
	}
	e.Up()
	<-ctx.Done()
	return nil
}

// bundledRuntime keeps containerd running.
type bundledRuntime struct{ Config }

func (c bundledRuntime) Run(ctx context.Context, e *status.Entry) error {
	cfg := c.Containerd()
	cfg.Ready = e.Up
	// Run starts containerd again itself, and containers run on meanwhile.
	cfg.Down = func(err error) { e.Set(status.Down, err) }
	return containerd.Run(ctx, cfg)
}

// preloadedImages are those in the bundle, so that the first Pod needs no registry.
type preloadedImages struct{ Config }

func (c preloadedImages) Run(ctx context.Context, e *status.Entry) error {
	if err := containerd.PreloadFiles(ctx, c.Containerd().Socket, c.Bundle.Images()); err != nil {
		return err
	}
	e.Up()
	<-ctx.Done()
	return nil
}

// podNetwork keeps the network of Pods, and the routes to other nodes.
type podNetwork struct{ Config }

func (c podNetwork) Run(ctx context.Context, e *status.Entry) error {
	client, err := c.credentials().Proxy("network")
	if err != nil {
		return err
	}
	cfg := c.network()
	cfg.Client, cfg.Ready, cfg.Report = client, e.Up, e.Report
	return network.Run(ctx, cfg)
}

// nodeAgent runs the kubelet, which is up when the Node is Ready.
type nodeAgent struct {
	Config
	shown serving
}

func (c nodeAgent) Run(ctx context.Context, e *status.Entry) error {
	cniConfig := ""
	if c.CRIEndpoint != "" {
		cniConfig = c.network().Conflist()
	}
	client, err := c.credentials().Kubelet("kubelet")
	if err != nil {
		return err
	}
	clientCA, err := c.credentials().ClientCA()
	if err != nil {
		return err
	}
	return kubelet.Run(ctx, kubelet.Config{
		NodeName: c.NodeName, NodeIPs: c.NodeAddrs, Client: client,
		RootDir: c.Kubelet.RootDir, Owner: c.rootDirs().Link(), PodLogsDir: PodLogsDir,
		CRIEndpoint: c.criEndpoint(), SharedRuntime: c.CRIEndpoint != "", CNIConfig: cniConfig,
		ClusterDNS: c.DNSAddrs, ClusterDomain: c.ClusterDomain,
		BindAddress: c.BindAddr, Port: c.Kubelet.Port, GetCertificate: c.shown.certificate, ClientCA: clientCA,
		Metrics: c.shown.metrics,
		MaxPods: c.Kubelet.MaxPods, NodeLabels: c.Kubelet.Labels, AllowedUnsafeSysctls: c.Kubelet.AllowedUnsafeSysctls,
		ImagePullCredentialsVerificationPolicy: c.Kubelet.ImagePullCredentialsVerificationPolicy,
		PreloadedImagesVerificationAllowlist:   c.Kubelet.PreloadedImagesVerificationAllowlist,
		// Containers run on whatever happens to the Node object: an error does not take it down.
		Report: e.Report, Ready: e.Up,
	})
}

// storageDriver has the volumes of local.flyball.dev on this node. It is up when the kubelet has
// registered it.
type storageDriver struct {
	Config
	await func(context.Context) error
}

func (c storageDriver) Run(ctx context.Context, e *status.Entry) error {
	if c.await != nil {
		if err := c.await(ctx); err != nil {
			return nil //nolint:nilerr // ctx has ended
		}
	}
	client, err := c.credentials().Storage("storage")
	if err != nil {
		return err
	}
	return storage.Run(ctx, storage.Config{
		NodeName: c.NodeName, Client: client, DataDir: c.DataDir, Paths: c.Storage.Paths, KubeletDir: c.Kubelet.RootDir,
		Version: version.Get().GitVersion, Ready: e.Up, Report: e.Report,
	})
}

// serviceProxy turns Services into rules.
type serviceProxy struct{ Config }

func (c serviceProxy) Run(ctx context.Context, e *status.Entry) error {
	client, err := c.credentials().Proxy("proxy")
	if err != nil {
		return err
	}
	return proxy.Run(ctx, proxy.Config{
		NodeName: c.NodeName, NodeIPs: c.NodeAddrs, Client: client,
		ClusterCIDRs: c.ClusterPrefixes, ServiceCIDRs: c.ServicePrefixes, Ready: e.Up,
	})
}

// clusterDNS serves names of the cluster.
type clusterDNS struct{ Config }

func (c clusterDNS) Run(ctx context.Context, e *status.Entry) error {
	client, err := c.credentials().DNS("dns")
	if err != nil {
		return err
	}
	return dns.Run(ctx, dns.Config{
		Client: client, Addresses: c.DNSAddrs, ClusterDomain: c.ClusterDomain, Upstream: "/etc/resolv.conf", Ready: e.Up,
	})
}
