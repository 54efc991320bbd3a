package dns

import (
	"context"
	"sync/atomic"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"
	_ "github.com/coredns/coredns/plugin/bind"    // listens on one address
	_ "github.com/coredns/coredns/plugin/cache"   // of answers of the host's servers
	_ "github.com/coredns/coredns/plugin/forward" // to the host's servers
	"github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/loadbalance" // varies the order of a headless Service's addresses
	"github.com/go-logr/logr"
	"github.com/miekg/dns"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

func init() { //nolint:gochecknoinits // CoreDNS has no other place for plugins
	plugin.Register("report", setupReport)
	plugin.Register("cluster", setupCluster)
	// In the order in which a query passes them.
	if err := dnsserver.SetDirectives([]string{"bind", "report", "loadbalance", "cache", "cluster", "forward"}); err != nil {
		panic(err)
	}
	caddy.Quiet, dnsserver.Quiet = true, true
}

// report logs errors of queries. It replaces CoreDNS's plugin errors, which always prints to
// standard error.
type report struct {
	next plugin.Handler
	log  atomic.Pointer[logr.Logger]
}

type reportKey struct{}

func setupReport(c *caddy.Controller) error {
	c.Next() // the name of the directive
	r := &report{}
	c.Set(reportKey{}, r)
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		r.next = next
		return r
	})
	return nil
}

func (*report) Name() string { return "report" }

func (r *report) ServeDNS(ctx context.Context, w dns.ResponseWriter, m *dns.Msg) (int, error) {
	code, err := plugin.NextOrFailure(r.Name(), r.next, ctx, w, m)
	if log := r.log.Load(); err != nil && log != nil && len(m.Question) > 0 {
		q := m.Question[0]
		log.V(1).Info("Answering a DNS query failed", "name", q.Name, "type", dns.TypeToString[q.Qtype], "code", dns.RcodeToString[code], "err", err)
	}
	return code, err
}

// cluster is CoreDNS's plugin kubernetes with our client. The plugin's own setup reads the client's
// configuration from files or the environment, replaces the process's klog logger, and delays the
// server until it has read the cluster.
type cluster struct {
	*kubernetes.Kubernetes
	connected atomic.Bool
}

type clusterKey struct{}

func setupCluster(c *caddy.Controller) error {
	c.Next() // the name of the directive
	k, err := kubernetes.ParseStanza(c)
	if err != nil {
		return plugin.Error("cluster", err)
	}
	cl := &cluster{Kubernetes: k}
	c.Set(clusterKey{}, cl)
	dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
		k.Next = next
		return cl
	})
	return nil
}

// connect starts to read the cluster until stop is called.
func (c *cluster) connect(ctx context.Context, client *rest.Config) (stop func() error, err error) {
	client = rest.CopyConfig(client)
	if client.ContentType == "" {
		client.ContentType = "application/vnd.kubernetes.protobuf"
		client.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	}
	c.ClientConfig = given{client}
	_, stop, err = c.InitKubeCache(ctx)
	if err != nil {
		return nil, err
	}
	go c.APIConn.Run()
	c.connected.Store(true)
	return stop, nil
}

func (c *cluster) synced() bool { return c.connected.Load() && c.APIConn.HasSynced() }

func (c *cluster) ServeDNS(ctx context.Context, w dns.ResponseWriter, m *dns.Msg) (int, error) {
	if !c.synced() && len(m.Question) > 0 && plugin.Zones(c.Zones).Matches(m.Question[0].Name) != "" {
		return dns.RcodeServerFailure, nil
	}
	return c.Kubernetes.ServeDNS(ctx, w, m)
}

// given is a clientcmd.ClientConfig of a client configuration.
type given struct{ config *rest.Config }

func (g given) RawConfig() (clientcmdapi.Config, error) { return clientcmdapi.Config{}, nil }
func (g given) ClientConfig() (*rest.Config, error)     { return g.config, nil }
func (g given) Namespace() (string, bool, error)        { return "default", false, nil }
func (g given) ConfigAccess() clientcmd.ConfigAccess    { return nil }

var _ clientcmd.ClientConfig = given{}
