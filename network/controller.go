package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/samber/lo"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"flyball.dev/internal/trigger"
	"flyball.dev/nft"
)

// Config is what the node network has to know.
type Config struct {
	// NodeName is the Node whose podCIDRs are for Pods of this host.
	NodeName string
	// Client reads Nodes. Run alone needs it.
	Client *rest.Config
	// ClusterCIDRs hold the podCIDRs of every Node, ServiceCIDRs the addresses of every Service.
	// One of each so far, IPv4.
	ClusterCIDRs, ServiceCIDRs []netip.Prefix
	// ClusterDNS are put on the loopback interface, for package dns to listen on.
	ClusterDNS []netip.Addr
	// CNIConfDir is where the container runtime reads its CNI configuration. Other programs may
	// have files there too.
	CNIConfDir string
	// IPAMDir receives the addresses that are taken. It must not outlive a reboot, as Pods do not.
	IPAMDir string
	// PluginDir holds our CNI plugins. CNIBinDir is where a runtime that is not ours looks for
	// plugins: it gets links to ours. Both are empty if the runtime looks into PluginDir.
	PluginDir, CNIBinDir string
	// MTU of the Pods' interfaces; 0 is that of the interface with the default route.
	MTU int
	// Ready, if set, is called once when Pods can have a network.
	Ready func()
	// Report, if set, is called with what cannot be done and is tried again.
	Report func(error)
}

// Conflist is the file with the CNI configuration. It is there once Pods can have a network.
func (c Config) Conflist() string { return filepath.Join(c.CNIConfDir, conflistName) }

const (
	resync   = 5 * time.Minute // the safety net behind the watch: another program may have changed a route
	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

func (c Config) validate() error {
	err := errors.Join(validateRanges("cluster CIDR", c.ClusterCIDRs), validateRanges("Service CIDR", c.ServiceCIDRs))
	if err != nil {
		return err
	}
	cluster, service := c.ClusterCIDRs[0], c.ServiceCIDRs[0]
	if cluster.Overlaps(service) {
		return fmt.Errorf("checking the network's configuration: cluster CIDR %s and Service CIDR %s overlap; "+
			"choose two that do not", cluster, service)
	}
	for _, dns := range c.ClusterDNS {
		if !service.Contains(dns) {
			return fmt.Errorf("checking the network's configuration: the cluster DNS address %s must lie in the "+
				"Service CIDR %s", dns, service)
		}
	}
	return nil
}

// validateRanges allows one range, as long as there is no dual stack.
func validateRanges(name string, ranges []netip.Prefix) error {
	if len(ranges) != 1 || !ranges[0].IsValid() || !ranges[0].Addr().Is4() || ranges[0] != ranges[0].Masked() {
		return fmt.Errorf("checking the network's configuration: %s %v must be an IPv4 network "+
			"such as 10.42.0.0/16", name, ranges)
	}
	return nil
}

// Setup prepares this host, before anything else of the node runs: unreachable routes for the
// ranges of Pods and Services, kernel settings, masquerading, and the cluster DNS address. It
// changes nothing and returns an error that names the cause if a range overlaps an address or route
// of the host. It is idempotent.
func Setup(cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	host, err := observe()
	if err != nil {
		return fmt.Errorf("setting up the node network: %w", err)
	}
	if err := conflict(cfg.ClusterCIDRs, cfg.ServiceCIDRs, host); err != nil {
		return err
	}
	// The routes come first: what follows makes a router of this host.
	if err := act(planBase(cfg.ClusterCIDRs, cfg.ServiceCIDRs, cfg.ClusterDNS, host)); err != nil {
		return fmt.Errorf("setting up the node network: %w", err)
	}
	if err := configureKernel(); err != nil {
		return fmt.Errorf("setting up the node network: %w", err)
	}
	if err := writeTable(masquerade(cfg.ClusterCIDRs)); err != nil {
		return fmt.Errorf("setting up the node network: %w; the kernel needs nf_tables, nft_chain_nat and nft_masq", err)
	}
	return nil
}

// writeTable makes the table in the kernel what it should be.
func writeTable(want nft.Table) error {
	have, err := nft.Kernel{}.Read(want.TableName)
	if err != nil {
		return err
	}
	return nft.Kernel{}.Apply(nft.Diff(have, want))
}

// Run follows the Nodes until ctx ends: it keeps the bridge and the CNI configuration for this
// node's podCIDRs, and the routes to those of other nodes. Everything that it made stays when it
// returns.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg.Client)
	if err != nil {
		return fmt.Errorf("making the node network's client: %w", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, resync, informers.WithTransform(trimNode))
	nodes := factory.Core().V1().Nodes().Informer()
	changed := trigger.New()
	if _, err := nodes.AddEventHandler(changed); err != nil {
		return fmt.Errorf("watching nodes: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), nodes.HasSynced) {
		return nil
	}
	firewall, err := nft.Kernel{}.Watch()
	if err != nil {
		return fmt.Errorf("watching the firewall: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		if err := firewall.Run(ctx, changed); err != nil {
			klog.FromContext(ctx).Error(err,
				"Following the firewall failed: after it has changed, Pods may have no network for five minutes")
		}
	})
	c := controller{cfg: cfg, nodes: nodes.GetStore()}
	return c.run(ctx, changed)
}

type controller struct {
	cfg      Config
	nodes    cache.Store
	ready    bool
	reported string // the last error: each is logged once
}

func (c *controller) run(ctx context.Context, changed <-chan struct{}) error {
	log, delay := klog.FromContext(ctx), retryMin
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-retry:
		}
		retry = nil
		ready, err := c.sync(log)
		if ready && !c.ready {
			c.ready = true
			if c.cfg.Ready != nil {
				c.cfg.Ready()
			}
		}
		c.report(log, err)
		if err == nil {
			delay = retryMin
			continue
		}
		retry, delay = time.After(delay), min(2*delay, retryMax)
	}
}

// sync observes, plans and acts. It returns whether Pods can have a network, which they can without
// one to other nodes.
func (c *controller) sync(log klog.Logger) (ready bool, err error) {
	host, err := observe()
	if err != nil {
		return false, err
	}
	wanted := want(c.cfg.NodeName, c.cfg.ClusterCIDRs, c.cfg.ServiceCIDRs, toNodes(c.nodes.List()))
	wanted.MTU = c.cfg.MTU
	if wanted.MTU == 0 {
		wanted.MTU = host.DefaultMTU
	}
	actions := append(planBase(c.cfg.ClusterCIDRs, c.cfg.ServiceCIDRs, c.cfg.ClusterDNS, host), plan(wanted, host)...)
	for _, a := range actions {
		log.V(2).Info("Changing the node network", "action", a.String(), "reason", a.Reason)
	}
	own, others := byOthers(actions)
	if err := act(own); err != nil {
		return false, err
	}
	// A firewall that cannot be changed is no reason to give Pods no network at all.
	later := errors.Join(act(others), syncForward(log, c.cfg.ClusterCIDRs))
	if len(wanted.PodCIDRs) == 0 {
		return false, later
	}
	// Last: with the configuration the runtime begins to start Pods.
	if err := configureCNI(c.cfg, wanted); err != nil {
		return false, errors.Join(err, later)
	}
	return true, later
}

// report logs what is in the way, once.
func (c *controller) report(log klog.Logger, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != c.reported {
		log.Error(err, "Configuring the node network failed, trying again")
		if c.cfg.Report != nil {
			c.cfg.Report(err)
		}
	}
	c.reported = text
}

// Routes are the destinations of the routes on this host that are ours, those that lead nowhere
// included.
func Routes() ([]netip.Prefix, error) {
	host, err := observe()
	if err != nil {
		return nil, err
	}
	return lo.Map(host.Routes, func(r Route, _ int) netip.Prefix { return r.To }), nil
}

// Cleanup removes everything that Setup and Run made, and the interfaces of the Pods that are still
// there. Kernel settings stay as they are. It is idempotent.
func Cleanup(cfg Config) error { return cleanup(cfg, resultsDir) }

func cleanup(cfg Config, results string) error {
	host, err := observe()
	if err == nil {
		err = act(planRemoval(cfg.ClusterDNS, host))
	}
	table := nft.Transaction{Table: masqueradeTable}
	table.Remove()
	err = errors.Join(err, syncForward(klog.Background(), nil), nft.Kernel{}.Apply(table),
		os.RemoveAll(cfg.IPAMDir), removeConflist(cfg.CNIConfDir))
	if cfg.CNIBinDir != "" {
		err = errors.Join(err, unlinkPlugins(cfg.CNIBinDir, results))
	}
	if err := errors.Join(err, removeResults(results)); err != nil {
		return fmt.Errorf("removing the node network: %w", err)
	}
	return nil
}
