// Package dns is the cluster's DNS server: CoreDNS as a library, in the process of the node agent,
// so that no image is needed before names resolve. It answers for the cluster domain from the API
// server's Services and EndpointSlices, and forwards all other queries to the host's servers.
//
// Package network adds the addresses that it listens on to the host, and the node agent writes them
// into each Pod's resolv.conf.
//
// CoreDNS keeps its list of plugins in package variables, which init fills once. All other state
// belongs to one Run, and a process can have several on different addresses.
//
//	dns.go      Config and Run
//	corefile.go CoreDNS's configuration, and the host's servers
//	plugins.go  plugins of our own
package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/coredns/caddy"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Config is what Run needs.
type Config struct {
	// Client reads Services, EndpointSlices and Namespaces.
	Client *rest.Config
	// Addresses, one or two, and Port, 53 if zero, are where it listens, UDP and TCP.
	Addresses []netip.Addr
	Port      int
	// ClusterDomain is the domain that it answers for, such as cluster.local.
	ClusterDomain string
	// Upstream is the file with the host's servers, /etc/resolv.conf if empty. It is read at start.
	Upstream string
	// Ready, if set, is called once, when names of the cluster resolve.
	Ready func()
}

const (
	defaultPort = 53
	// syncInterval is how often Run checks whether CoreDNS has read the cluster, for which it has
	// no event.
	syncInterval = 10 * time.Millisecond
)

// Run serves DNS until ctx ends. It answers SERVFAIL for names of the cluster until it has read
// them once; resolvers retry.
func Run(ctx context.Context, cfg Config) error {
	if cfg.Port == 0 {
		cfg.Port = defaultPort
	}
	if len(cfg.Addresses) == 0 || cfg.ClusterDomain == "" {
		return errors.New("starting the DNS server: it needs addresses and a cluster domain")
	}
	servers, err := upstreams(cfg.Upstream, systemdResolvConf, cfg.Addresses)
	if err != nil {
		return err
	}
	if len(servers) == 0 {
		klog.FromContext(ctx).V(1).Info("The host has no DNS server: names outside of the cluster will not resolve", "file", cfg.Upstream)
	}
	instance, err := caddy.Start(caddy.CaddyfileInput{Filepath: "flyball", Contents: corefile(cfg, servers), ServerTypeName: "dns"})
	if err != nil {
		return fmt.Errorf("starting the DNS server on %s port %d: %w", join(cfg.Addresses), cfg.Port, err)
	}
	err = serve(ctx, cfg, instance)
	errs := append([]error{err}, instance.ShutdownCallbacks()...)
	errs = append(errs, instance.Stop())
	instance.Wait()
	return errors.Join(errs...)
}

func serve(ctx context.Context, cfg Config, instance *caddy.Instance) error {
	instance.StorageMu.RLock()
	r, _ := instance.Storage[reportKey{}].(*report)
	c, _ := instance.Storage[clusterKey{}].(*cluster)
	instance.StorageMu.RUnlock()
	if r == nil || c == nil {
		return errors.New("starting the DNS server: CoreDNS did not set our plugins up")
	}
	log := klog.FromContext(ctx)
	r.log.Store(&log)
	stop, err := c.connect(ctx, cfg.Client)
	if err != nil {
		return fmt.Errorf("connecting the DNS server to the API server: %w", err)
	}
	defer func() {
		if err := stop(); err != nil {
			log.V(1).Info("Disconnecting the DNS server failed", "err", err)
		}
	}()
	tick := time.NewTicker(syncInterval)
	defer tick.Stop()
	for !c.synced() {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	tick.Stop()
	if cfg.Ready != nil {
		cfg.Ready()
	}
	<-ctx.Done()
	return nil
}
