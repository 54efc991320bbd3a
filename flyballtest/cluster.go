package flyballtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// admin is the name of the administrator, and of its context in the kubeconfig file.
const admin = "admin"

// Cluster is a running Kubernetes cluster. Several goroutines may call its methods at once, except
// for Restore: reads during a restore see a mixture of both states.
type Cluster struct {
	options  *options
	program  string
	dir      string // has all files of the cluster
	ca       *ca
	token    string // of the package's own processes, in the group system:masters
	webhooks Webhooks
	ports    []*port

	etcd, server *process
	serverArgs   []string
	admin        *rest.Config

	mu          sync.Mutex
	controllers *process // nil if there are none
	standby     *process // the next controllers, waiting; nil before the first checkpoint
	nodes       *process // nil if there are none
	kubeconfig  *api.Config
	closed      bool
}

// Start starts a cluster that stops when the test and its subtests have ended. If the start fails,
// the test fails at once. If the test fails, the test's log gets the end of the cluster's logs.
func Start(t testing.TB, opts ...Option) *Cluster {
	t.Helper()
	c, err := New(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			var logs bytes.Buffer
			c.WriteLogs(&logs)
			t.Log(logs.String())
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// New starts a cluster that runs until Close. It is for TestMain and other places without a test;
// see Start. It returns when the API server is ready, all manifests are applied, controllers are
// running, the kinds of apps.flyball.dev are served, and nodes are Ready. An error has the end of
// the log of a process that ended, and nothing of the cluster remains then.
func New(opts ...Option) (*Cluster, error) {
	o, err := collect(opts)
	if err != nil {
		return nil, err
	}
	objects, err := readAll(o)
	if err != nil {
		return nil, err
	}
	program, err := findProgram(context.Background(), o.program)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), o.startTimeout, fmt.Errorf("it took longer than %s", o.startTimeout))
	defer cancel()
	c := &Cluster{options: o, program: program}
	if err := c.start(ctx, objects); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a cluster: %w", err), c.Close())
	}
	return c, nil
}

// Close stops the cluster and removes its files. Calling it again does nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	var errs []error
	for _, p := range []*process{c.controllers, c.standby, c.nodes, c.server, c.etcd} {
		if p != nil {
			errs = append(errs, p.kill())
		}
	}
	for _, p := range c.ports {
		p.release()
	}
	if c.dir != "" {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stopping a cluster: %w", err)
	}
	return nil
}

// Config returns the client configuration of an administrator, in the group system:masters. Each
// call returns a copy. Client-side rate limits are high.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.admin) }

// Kubeconfig returns the path of a kubeconfig file, which exists until the cluster stops. Its
// current context is "admin", the user of Config. Each call of User adds a context with the name of
// that user.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// User returns the client configuration of a user with this name and these groups, by a client
// certificate. The user need not exist before. It has the permissions that RBAC gives to it and to
// every authenticated user. User panics if the name is empty or if the kubeconfig file cannot be
// written.
func (c *Cluster) User(name string, groups ...string) *rest.Config {
	if name == "" {
		panic("flyballtest: a user needs a name")
	}
	config, err := c.userConfig(name, groups)
	if err == nil {
		err = c.addContext(name, config)
	}
	if err != nil {
		panic(fmt.Sprintf("flyballtest: adding the user %s: %v", name, err))
	}
	return config
}

func (c *Cluster) userConfig(name string, groups []string) (*rest.Config, error) {
	p, err := c.ca.user(name, groups)
	if err != nil {
		return nil, err
	}
	config := c.anonymous()
	config.CertData, config.KeyData = p.cert, p.key
	return config, nil
}

// addContext adds a user to the kubeconfig file.
func (c *Cluster) addContext(name string, config *rest.Config) error {
	const cluster = "flyballtest"
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kubeconfig == nil {
		c.kubeconfig = api.NewConfig()
		c.kubeconfig.Clusters[cluster] = &api.Cluster{Server: config.Host, CertificateAuthorityData: config.CAData}
		c.kubeconfig.CurrentContext = name
	}
	c.kubeconfig.AuthInfos[name] = &api.AuthInfo{
		ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken,
	}
	c.kubeconfig.Contexts[name] = &api.Context{Cluster: cluster, AuthInfo: name}
	if err := clientcmd.WriteToFile(*c.kubeconfig, c.Kubeconfig()); err != nil {
		return fmt.Errorf("writing the kubeconfig: %w", err)
	}
	return nil
}

// WriteLogs writes the end of the log of each process of the cluster to w.
func (c *Cluster) WriteLogs(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range []*process{c.etcd, c.server, c.controllers, c.nodes} {
		if p != nil {
			_, _ = fmt.Fprintf(w, "the end of the log of %s:\n%s\n", p.name, p.tail(logLines))
		}
	}
}

// logLines is how many lines of each log a failed test shows.
const logLines = 100
