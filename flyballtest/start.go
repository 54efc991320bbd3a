package flyballtest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"

	"flyball.dev/internal/kubeconfig"
)

const (
	// attempts is how many ports are tried if other processes use them.
	attempts = 5
	// pollInterval is how often a process is checked while it starts.
	pollInterval = 5 * time.Millisecond

	host = "127.0.0.1"
	// QPS and burst of the client configurations: controller-runtime's defaults are for production.
	qps, burst = 1000, 2000
)

// Variables of the program flyball (controlplane/envtest).
const (
	modeVariable   = "FLYBALL_ENVTEST"
	tokenVariable  = "FLYBALL_ENVTEST_TOKEN" //nolint:gosec // the name of a variable
	parentVariable = "FLYBALL_ENVTEST_PARENT"
	// directoryVariable names the directory to remove if this process dies. Every process removes
	// it, since each may create files until it ends.
	directoryVariable = "FLYBALL_ENVTEST_DIRECTORY"
)

// start starts everything, in order.
func (c *Cluster) start(ctx context.Context, objects []object) error {
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.prepareWebhooks(objects); err != nil {
		return err
	}
	if err := c.startEtcd(ctx); err != nil {
		return err
	}
	if err := c.startServer(ctx); err != nil {
		return err
	}
	if err := c.writeKubeconfig(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return install(ctx, c.admin, objects) })
	if c.options.controllers {
		g.Go(func() error {
			if err := c.startControllers(ctx); err != nil {
				return err
			}
			return c.waitOurKinds(ctx)
		})
	}
	if c.options.nodes > 0 {
		g.Go(func() error { return c.startNodes(ctx) })
	}
	return g.Wait()
}

// prepare creates the directory, and the certificates and keys in it.
func (c *Cluster) prepare() (err error) {
	if c.dir, err = os.MkdirTemp("", fmt.Sprintf("flyballtest-%d-", os.Getpid())); err != nil {
		return fmt.Errorf("creating a directory: %w", err)
	}
	logs := c.options.logDir
	if logs == "" {
		logs = c.path("log")
	}
	if c.options.logDir, err = filepath.Abs(logs); err != nil {
		return fmt.Errorf("creating the directory of logs: %w", err)
	}
	for _, dir := range []string{c.options.logDir, c.path("tmp"), c.path("pki"), c.path("webhooks")} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return fmt.Errorf("creating a directory: %w", err)
		}
	}
	if c.ca, err = newCA(); err != nil {
		return err
	}
	serving, err := c.ca.server()
	if err != nil {
		return err
	}
	signingKey, err := keyutil.MakeEllipticPrivateKeyPEM()
	if err != nil {
		return fmt.Errorf("generating the key of service accounts: %w", err)
	}
	var random [24]byte
	_, _ = rand.Read(random[:]) // never fails
	c.token = hex.EncodeToString(random[:])
	for name, data := range map[string][]byte{
		"pki/ca.crt": c.ca.pem, "pki/server.crt": serving.cert, "pki/server.key": serving.key,
		"pki/sa.key":       signingKey,
		"pki/tokens.csv":   []byte(c.token + ",flyballtest,flyballtest,\"system:masters\"\n"),
		"webhooks/tls.crt": serving.cert, "webhooks/tls.key": serving.key,
	} {
		if err := os.WriteFile(c.path(name), data, 0o600); err != nil {
			return fmt.Errorf("writing certificates: %w", err)
		}
	}
	return nil
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, filepath.FromSlash(name)) }

// run starts the program with args, the first of which is its name.
func (c *Cluster) run(name string, args []string, env ...string) (*process, error) {
	return command{name: name, program: c.program, args: args, env: append(c.environment(), env...), logDir: c.options.logDir}.start()
}

// environment is that of this process without variables that configure the program.
func (c *Cluster) environment() []string {
	env := make([]string, 0, len(os.Environ()))
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch name {
		case modeVariable, tokenVariable, parentVariable, directoryVariable, "KUBECONFIG", "TMPDIR":
		default:
			env = append(env, variable)
		}
	}
	return append(env, parentVariable+"=stdin", directoryVariable+"="+c.dir, "TMPDIR="+c.path("tmp"))
}

// maxSocketPath is the shortest limit of any system for the path of a socket.
const maxSocketPath = 103

// etcdURL is where etcd listens: on a socket, or on a port if the path is too long.
func (c *Cluster) etcdURL() (string, error) {
	if socket := c.path("etcd.sock"); runtime.GOOS != "windows" && len(socket) <= maxSocketPath {
		return "unix://" + socket, nil
	}
	p, err := newPort()
	if err != nil {
		return "", err
	}
	c.ports = append(c.ports, p)
	return "http://" + p.address(), nil
}

func (c *Cluster) startEtcd(ctx context.Context) error {
	url, err := c.etcdURL()
	if err != nil {
		return err
	}
	c.etcd, err = c.run("etcd", []string{
		"etcd", "--data-dir=" + c.path("etcd"), "--listen-client-urls=" + url, "--advertise-client-urls=" + url,
		"--listen-peer-urls=http://" + host + ":0", "--unsafe-no-fsync", "--log-level=error",
	})
	if err != nil {
		return err
	}
	c.serverArgs = []string{"--etcd-servers=" + url}
	network, address, _ := strings.Cut(url, "://")
	if network == "http" {
		network = "tcp"
	}
	return c.wait(ctx, c.etcd, func() bool {
		conn, err := net.Dial(network, address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// wait returns when done returns true, or an error when the process has ended.
func (c *Cluster) wait(ctx context.Context, p *process, done func() bool) error {
	for !done() {
		select {
		case <-p.ended:
			return p.failure()
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; the end of its log:\n%s", p.name, context.Cause(ctx), p.tail(20))
		case <-time.After(pollInterval):
		}
	}
	return nil
}

// startServer starts kube-apiserver on a port that is free.
func (c *Cluster) startServer(ctx context.Context) error {
	etcd := c.serverArgs
	for range attempts {
		p, err := newPort()
		if err != nil {
			return err
		}
		c.ports = append(c.ports, p)
		c.serverArgs = slices.Concat(etcd, c.serverFlags(p), c.options.flags)
		if c.server, err = c.run("kube-apiserver", append([]string{"kube-apiserver"}, c.serverArgs...), tokenVariable+"="+c.token); err != nil {
			return err
		}
		c.admin = &rest.Config{Host: "https://" + p.address()} // for anonymous
		if c.admin, err = c.userConfig(admin, []string{"system:masters"}); err != nil {
			return err
		}
		switch err := c.ready(ctx); {
		case err == nil:
			return c.addContext(admin, c.admin)
		case !c.server.logged("address already in use") && !c.server.logged("Only one usage of each socket address"):
			return err
		}
		_ = os.Remove(c.server.log)
	}
	return fmt.Errorf("starting kube-apiserver: other processes use the %d ports that were tried", attempts)
}

func (c *Cluster) serverFlags(p *port) []string {
	flags := []string{
		"--bind-address=" + host, "--advertise-address=" + host, "--secure-port=" + strconv.Itoa(p.number),
		"--endpoint-reconciler-type=none", // it does not accept a loopback address
		"--cert-dir=" + c.path("pki"), "--tls-cert-file=" + c.path("pki/server.crt"), "--tls-private-key-file=" + c.path("pki/server.key"),
		"--client-ca-file=" + c.path("pki/ca.crt"), "--token-auth-file=" + c.path("pki/tokens.csv"),
		"--authorization-mode=RBAC", "--allow-privileged=true",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + c.path("pki/sa.key"), "--service-account-signing-key-file=" + c.path("pki/sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--etcd-compaction-interval=0", // checkpoints are revisions
		"--v=" + strconv.Itoa(c.options.verbosity),
	}
	if !c.options.controllers {
		flags = append(flags, "--disable-admission-plugins=ServiceAccount") // no controller creates service accounts
	}
	return flags
}

// anonymous returns a client configuration without credentials.
func (c *Cluster) anonymous() *rest.Config {
	return &rest.Config{Host: c.admin.Host, TLSClientConfig: rest.TLSClientConfig{CAData: c.ca.pem}, QPS: qps, Burst: burst}
}

// ready returns when the API server is ready.
func (c *Cluster) ready(ctx context.Context) error {
	client, err := rest.HTTPClientFor(c.admin)
	if err != nil {
		return fmt.Errorf("connecting to kube-apiserver: %w", err)
	}
	defer client.CloseIdleConnections()
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // a request waits for a server that is starting, but must not wait for one that has ended
		select {
		case <-c.server.ended:
			cancel()
		case <-asking.Done():
		}
	}()
	return c.wait(ctx, c.server, func() bool {
		req, err := http.NewRequestWithContext(asking, http.MethodGet, c.admin.Host+"/readyz", nil)
		if err != nil {
			return false
		}
		answer, err := client.Do(req)
		if err != nil {
			return false
		}
		_ = answer.Body.Close()
		return answer.StatusCode == http.StatusOK
	})
}

// startWaiting starts a process with controllers or nodes. It waits until begin is called.
func (c *Cluster) startWaiting(name string, flags ...string) (*process, error) {
	args := append([]string{
		"flyball", "envtest", "part", "--await", "--kubeconfig=" + c.path("pki/kubeconfig"), "--verbosity=" + strconv.Itoa(c.options.verbosity),
	}, flags...)
	return c.run(name, append(append(args, "--"), c.serverArgs...))
}

// begin lets a process begin that was started waiting, and returns when it is ready.
func begin(ctx context.Context, p *process) error {
	if err := p.begin(); err != nil && p.running() {
		return err
	}
	select {
	case <-p.ready:
		return nil
	case <-p.ended:
		return p.failure()
	case <-ctx.Done():
		return fmt.Errorf("waiting for %s: %w; the end of its log:\n%s", p.name, context.Cause(ctx), p.tail(20))
	}
}

// startControllers starts controllers and scheduler, and returns when they are ready.
func (c *Cluster) startControllers(ctx context.Context) error {
	if err := c.startStandby(); err != nil {
		return err
	}
	c.mu.Lock()
	c.controllers, c.standby = c.standby, nil
	p := c.controllers
	c.mu.Unlock()
	return begin(ctx, p)
}

// ourKinds are installed by the controllers, after everything else.
var ourKinds = schema.GroupVersion{Group: "apps.flyball.dev", Version: "v1alpha1"}

// waitOurKinds returns when the kinds are served that the controllers install. A test may use them,
// and if a checkpoint were older, each restore would remove them.
func (c *Cluster) waitOurKinds(ctx context.Context) error {
	d, err := discovery.NewDiscoveryClientForConfig(c.admin)
	if err != nil {
		return fmt.Errorf("connecting to the cluster: %w", err)
	}
	return c.wait(ctx, c.controllers, func() bool {
		list, err := d.ServerResourcesForGroupVersion(ourKinds.String())
		return err == nil && contains(list, "deployments") && contains(list, "replicasets")
	})
}

// startStandby starts the process of the next controllers, which waits. Its start takes a tenth of
// a second of CPU time, which a restore need not wait for then.
func (c *Cluster) startStandby() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	if c.standby != nil && c.standby.running() {
		return nil
	}
	var err error
	c.standby, err = c.startWaiting("controllers", "--controllers")
	return err
}

func (c *Cluster) startNodes(ctx context.Context) error {
	p, err := c.startWaiting("nodes", "--nodes="+strconv.Itoa(c.options.nodes))
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.nodes = p
	c.mu.Unlock()
	return begin(ctx, p)
}

// writeKubeconfig writes the kubeconfig of controllers and nodes.
func (c *Cluster) writeKubeconfig() error {
	cluster := api.Cluster{Server: c.admin.Host, CertificateAuthorityData: c.ca.pem}
	data, err := kubeconfig.Encode(cluster, "flyballtest", api.AuthInfo{Token: c.token})
	if err == nil {
		err = os.WriteFile(c.path("pki/kubeconfig"), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("writing a kubeconfig: %w", err)
	}
	return nil
}

func shortHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:6])
}

var errClosed = errors.New("the cluster has stopped")
