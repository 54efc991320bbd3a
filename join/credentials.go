package join

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	certutil "k8s.io/client-go/util/cert"

	"flyball.dev/internal/kubeconfig"
)

// Credentials are the files in an agent's directory by which the components of a node are known to
// the API server. Joining writes them, and on its own host the server does.
type Credentials struct {
	// Dir is the agent's directory.
	Dir string
}

// Client reads a kubeconfig for one of our components.
func Client(path, component string) (*rest.Config, error) {
	c, err := kubeconfig.Client(path)
	if err == nil {
		c.UserAgent = "flyball-" + component
	}
	return c, err
}

// Kubelet is the identity of the node agent, as Proxy and DNS are those of these components. The
// user agent names the component that asks.
func (c Credentials) Kubelet(component string) (*rest.Config, error) {
	return Client(filepath.Join(c.Dir, kubeconfigs[0]), component)
}

// Proxy is the identity of the service proxy and of the node network.
func (c Credentials) Proxy(component string) (*rest.Config, error) {
	return Client(filepath.Join(c.Dir, kubeconfigs[1]), component)
}

// DNS is the identity of the cluster DNS.
func (c Credentials) DNS(component string) (*rest.Config, error) {
	return Client(filepath.Join(c.Dir, kubeconfigs[2]), component)
}

// Storage is the identity of the storage driver. On a joined host its certificate is issued after
// the host has joined: Certificates.AwaitStorage waits for it.
func (c Credentials) Storage(component string) (*rest.Config, error) {
	file := filepath.Join(c.Dir, "storage.kubeconfig")
	if _, err := os.Stat(file); err == nil {
		return Client(file, component)
	}
	client, err := c.Kubelet(component)
	if err == nil {
		pair := current(c.Dir, storagePair)
		client.CertFile, client.KeyFile = pair, pair
	}
	return client, err
}

// ClientCA is the certificate authority of the clients that the kubelet accepts.
func (c Credentials) ClientCA() (*x509.CertPool, error) {
	pool, err := certutil.NewPool(filepath.Join(c.Dir, caFile))
	if err != nil {
		return nil, fmt.Errorf("reading the CA of clients: %w", err)
	}
	return pool, nil
}

// GetCertificate returns the kubelet's serving certificate that the server of this host wrote, for
// tls.Config. The server renews it when it starts.
func (c Credentials) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	pair := filepath.Join(c.Dir, "serving.pem")
	cert, err := tls.LoadX509KeyPair(pair, pair)
	if err != nil {
		return nil, fmt.Errorf("reading the node agent's serving certificate: %w", err)
	}
	return &cert, nil
}

// reachInterval is how often Run tries to reach an API server that is not there. Nothing can notify
// it.
const reachInterval = 250 * time.Millisecond

// Run calls up once the credentials are there and the API server answers, and report with the
// reason each time that it has to try again. It returns when ctx ends.
func (c Credentials) Run(ctx context.Context, up func(), report func(error)) error {
	for {
		err := c.reach(ctx)
		if err == nil {
			up()
			<-ctx.Done()
			return nil
		}
		report(err)
		select {
		case <-time.After(reachInterval):
		case <-ctx.Done():
			return nil
		}
	}
}

func (c Credentials) reach(ctx context.Context) error {
	client, err := c.Kubelet("agent")
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
