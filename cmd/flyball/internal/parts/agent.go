package parts

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/samber/lo"
	"k8s.io/client-go/discovery"

	"flyball.dev/cmd/flyball/internal/board"
	"flyball.dev/cmd/flyball/internal/propagation"
	"flyball.dev/cmd/flyball/internal/supervisor"
	"flyball.dev/containerd"
	"flyball.dev/dns"
	"flyball.dev/join"
	"flyball.dev/kubelet"
	"flyball.dev/network"
	"flyball.dev/proxy"
)

// AgentDir holds what the node agent is somebody by: the server of this machine writes it, or joining does.
func (s Set) AgentDir() string { return filepath.Join(s.Config.DataDir, "agent") }

// KubeletDir holds the files of Pods.
func (s Set) KubeletDir() string { return filepath.Join(s.Config.DataDir, "kubelet") }

// credential is a file in AgentDir.
func (s Set) credential(name string) string { return filepath.Join(s.AgentDir(), name) }

// apiAccess is up once the server has left credentials and answers.
func (s Set) apiAccess() supervisor.Part {
	return supervisor.Part{Name: APIAccess, Run: func(ctx context.Context, report supervisor.Report) error {
		for {
			err := s.reachAPI(ctx)
			if err == nil {
				report(APIAccess, board.Up, nil)
				<-ctx.Done()
				return nil
			}
			report(APIAccess, board.Starting, err)
			select {
			case <-time.After(retryEvery):
			case <-ctx.Done():
				return nil
			}
		}
	}}
}

func (s Set) reachAPI(ctx context.Context) error {
	client, err := Client(s.credential("kubelet.kubeconfig"), "agent")
	if err != nil {
		return fmt.Errorf("reading the node's credentials, which `flyball server` on this machine writes; --server and --token join the cluster of another machine: %w", err)
	}
	d, err := discovery.NewDiscoveryClientForConfig(client)
	if err != nil {
		return fmt.Errorf("reaching the API server: %w", err)
	}
	if _, err := d.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return fmt.Errorf("reaching the API server at %s: %w", client.Host, err)
	}
	return nil
}

// routes stand before anything of the node sends a packet.
func (s Set) routes(first string) supervisor.Part {
	const name = "routes"
	return supervisor.Part{Name: name, After: after(first), Run: func(ctx context.Context, report supervisor.Report) error {
		if err := network.Setup(s.Network()); err != nil {
			return err
		}
		report(name, board.Up, nil)
		<-ctx.Done()
		return nil
	}}
}

func (s Set) containerd(first string) supervisor.Part {
	const name = "containerd"
	return supervisor.Part{Name: name, After: after(first), Run: func(ctx context.Context, report supervisor.Report) error {
		if err := propagation.Share(s.Config.DataDir); err != nil {
			return err
		}
		c := s.Containerd()
		c.Ready = up(report, name)
		// The room starts it again itself, and containers run on meanwhile.
		c.Down = func(err error) { report(name, board.Down, err) }
		return containerd.Run(ctx, c)
	}}
}

// images preloads the bundled images, so that the first Pod needs no registry.
func (s Set) images() supervisor.Part {
	const name = "images"
	return supervisor.Part{Name: name, After: []string{"containerd"}, Run: func(ctx context.Context, report supervisor.Report) error {
		for i, file := range s.Bundle.Images() {
			_, err := load(ctx, s.Containerd().Socket, file, containerd.Preload)
			if i > 0 && errors.Is(err, os.ErrNotExist) {
				continue // only the first, the pause image, is needed
			}
			if err != nil {
				return err
			}
		}
		report(name, board.Up, nil)
		<-ctx.Done()
		return nil
	}}
}

// Import loads an image archive into the bundled container runtime, and returns the names of the images.
func Import(ctx context.Context, socket, file string) ([]string, error) {
	return load(ctx, socket, file, containerd.Import)
}

func load(ctx context.Context, socket, file string, into func(context.Context, string, io.Reader) ([]string, error)) ([]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("opening the image archive: %w", err)
	}
	defer f.Close()
	names, err := into(ctx, socket, f)
	if err != nil {
		return nil, fmt.Errorf("importing %s: %w", file, err)
	}
	return names, nil
}

func (s Set) network(api string) supervisor.Part {
	const name = "network"
	return supervisor.Part{Name: name, After: []string{"routes", api}, Run: func(ctx context.Context, report supervisor.Report) error {
		client, err := Client(s.credential("proxy.kubeconfig"), name)
		if err != nil {
			return err
		}
		c := s.Network()
		ready := atomic.Bool{}
		c.Client = client
		c.Ready = func() { ready.Store(true); report(name, board.Up, nil) }
		c.Report = func(err error) { report(name, lo.Ternary(ready.Load(), board.Up, board.Starting), err) }
		return network.Run(ctx, c)
	}}
}

// certificates renews those of a machine that has joined. The first serving certificate comes after the Node, so nothing
// waits for this part but whoever wants to know that everything is up.
func (s Set) certificates(c *join.Certificates) supervisor.Part {
	const name = "certificates"
	return supervisor.Part{Name: name, After: []string{APIAccess}, Run: func(ctx context.Context, report supervisor.Report) error {
		return c.Run(ctx, up(report, name), func(err error) { report(name, board.Starting, err) })
	}}
}

func (s Set) kubelet(api string, serving getCertificate) supervisor.Part {
	needs := []string{"routes", api}
	if s.Config.CRIEndpoint == "" {
		needs = append(needs, "images")
	}
	return supervisor.Part{Name: Kubelet, After: needs, Run: func(ctx context.Context, report supervisor.Report) error {
		c := s.Config
		cniConfig := ""
		if c.CRIEndpoint != "" {
			cniConfig = s.Network().Conflist()
			// Before the bundled runtime this is done by its own part.
			if err := propagation.Share(c.DataDir); err != nil {
				return err
			}
		}
		client, err := Client(s.credential("kubelet.kubeconfig"), Kubelet)
		if err != nil {
			return err
		}
		clientCA, err := s.clientCA()
		if err != nil {
			return err
		}
		ready := atomic.Bool{}
		return kubelet.Run(ctx, kubelet.Config{
			NodeName: c.NodeName, NodeIPs: []netip.Addr{c.NodeAddr}, Client: client,
			RootDir: s.KubeletDir(), PodLogsDir: PodLogsDir,
			CRIEndpoint: s.CRIEndpoint(), SharedRuntime: c.CRIEndpoint != "", CNIConfig: cniConfig,
			ClusterDNS: []netip.Addr{c.DNSAddr}, ClusterDomain: c.ClusterDomain,
			BindAddress: c.BindAddr, Port: c.Kubelet.Port, GetCertificate: serving, ClientCA: clientCA,
			Metrics: s.metrics,
			MaxPods: c.Kubelet.MaxPods, NodeLabels: c.Kubelet.Labels, AllowedUnsafeSysctls: c.Kubelet.AllowedUnsafeSysctls,
			ImagePullCredentialsVerificationPolicy: c.Kubelet.ImagePullCredentialsVerificationPolicy,
			PreloadedImagesVerificationAllowlist:   c.Kubelet.PreloadedImagesVerificationAllowlist,
			// Containers run on whatever happens to the Node object: an error does not take a part down that was up.
			Report: func(err error) { report(Kubelet, lo.Ternary(ready.Load(), board.Up, board.Starting), err) },
			Ready:  func() { ready.Store(true); report(Kubelet, board.Up, nil) },
		})
	}}
}

// PodLogsDir is where log shippers look.
const PodLogsDir = "/var/log/pods"

// getCertificate is what the node agent's HTTPS server shows.
type getCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)

// serving is the certificate that the server of this machine left for its node agent, and renews when it starts.
func (s Set) serving() getCertificate {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		pair := s.credential("serving.pem")
		cert, err := tls.LoadX509KeyPair(pair, pair)
		if err != nil {
			return nil, fmt.Errorf("reading the node agent's serving certificate: %w", err)
		}
		return &cert, nil
	}
}

// clientCA is the authority whose clients the node agent knows.
func (s Set) clientCA() (*x509.CertPool, error) {
	ca, err := os.ReadFile(s.credential("client-ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("reading the CA of clients: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("reading the CA of clients: %s holds no certificate", s.credential("client-ca.crt"))
	}
	return pool, nil
}

func (s Set) proxy(api string) supervisor.Part {
	const name = "proxy"
	return supervisor.Part{Name: name, After: []string{"routes", api}, Run: func(ctx context.Context, report supervisor.Report) error {
		client, err := Client(s.credential("proxy.kubeconfig"), name)
		if err != nil {
			return err
		}
		return proxy.Run(ctx, proxy.Config{
			NodeName: s.Config.NodeName, NodeIPs: []netip.Addr{s.Config.NodeAddr}, Client: client,
			ClusterCIDRs: []netip.Prefix{s.Config.ClusterPrefix}, ServiceCIDRs: []netip.Prefix{s.Config.ServicePrefix},
			Ready: up(report, name),
		})
	}}
}

func (s Set) dns(bootstrapped string) supervisor.Part {
	const name = "dns"
	return supervisor.Part{Name: name, After: []string{"routes", bootstrapped}, Run: func(ctx context.Context, report supervisor.Report) error {
		client, err := Client(s.credential("dns.kubeconfig"), name)
		if err != nil {
			return err
		}
		return dns.Run(ctx, dns.Config{
			Client: client, Addresses: []netip.Addr{s.Config.DNSAddr}, ClusterDomain: s.Config.ClusterDomain,
			Upstream: "/etc/resolv.conf", Ready: up(report, name),
		})
	}}
}
