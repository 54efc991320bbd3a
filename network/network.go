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

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Config is what the node network has to know.
type Config struct {
	// NodeName is the Node whose podCIDR is for Pods of this machine.
	NodeName string
	// Client reads Nodes. Run alone needs it.
	Client *rest.Config
	// ClusterCIDR holds the podCIDR of every Node, ServiceCIDR the address of every Service. IPv4.
	ClusterCIDR, ServiceCIDR netip.Prefix
	// ClusterDNS is put on the loopback interface, for package dns to listen on.
	ClusterDNS netip.Addr
	// CNIConfDir is where the container runtime reads its CNI configuration. Others may have files there too.
	CNIConfDir string
	// IPAMDir receives the addresses that are taken. It must not outlive a reboot, as Pods do not.
	IPAMDir string
	// PluginDir holds our CNI plugins. CNIBinDir is where a runtime that is not ours looks for plugins: it gets links
	// to ours. Both are empty if the runtime looks into PluginDir.
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
	resync   = 5 * time.Minute // the safety net behind the watch: somebody may have changed a route
	retryMin = 100 * time.Millisecond
	retryMax = 10 * time.Second
)

func (c Config) validate() error {
	for name, p := range map[string]netip.Prefix{"cluster CIDR": c.ClusterCIDR, "Service CIDR": c.ServiceCIDR} {
		if !p.IsValid() || !p.Addr().Is4() || p != p.Masked() {
			return fmt.Errorf("checking the network's configuration: %s %s must be an IPv4 network such as 10.42.0.0/16", name, p)
		}
	}
	if c.ClusterCIDR.Overlaps(c.ServiceCIDR) {
		return fmt.Errorf("checking the network's configuration: cluster CIDR %s and Service CIDR %s overlap; choose two that do not", c.ClusterCIDR, c.ServiceCIDR)
	}
	if c.ClusterDNS.IsValid() && !c.ServiceCIDR.Contains(c.ClusterDNS) {
		return fmt.Errorf("checking the network's configuration: the cluster DNS address %s must lie in the Service CIDR %s", c.ClusterDNS, c.ServiceCIDR)
	}
	return nil
}

// Setup prepares this machine, before anything else of the node runs: unreachable routes for both CIDRs, kernel
// settings, masquerading, and the cluster DNS address. It changes nothing and returns an error that names the cause if
// a CIDR overlaps an address or route of the host. It is idempotent.
func Setup(cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	host, err := observe()
	if err != nil {
		return fmt.Errorf("setting up the node network: %w", err)
	}
	if err := conflict(cfg.ClusterCIDR, cfg.ServiceCIDR, host); err != nil {
		return err
	}
	// The routes come first: what follows makes a router of this machine.
	if err := act(planBase(cfg.ClusterCIDR, cfg.ServiceCIDR, cfg.ClusterDNS, host)); err != nil {
		return fmt.Errorf("setting up the node network: %w", err)
	}
	if err := configureKernel(); err != nil {
		return fmt.Errorf("setting up the node network: %w", err)
	}
	if err := applyRuleset(masquerade(cfg.ClusterCIDR)); err != nil {
		return fmt.Errorf("setting up the node network: %w", err)
	}
	return nil
}

// Run follows the Nodes until ctx ends: it keeps the bridge and the CNI configuration for this node's podCIDR, and the
// routes to those of other nodes. What it made stays when it returns.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(cfg.Client)
	if err != nil {
		return fmt.Errorf("making the node network's client: %w", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(client, resync, informers.WithTransform(trimNode))
	nodes := factory.Core().V1().Nodes()
	changed := make(chan struct{}, 1)
	wake := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	if _, err := nodes.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { wake() }, UpdateFunc: func(any, any) { wake() }, DeleteFunc: func(any) { wake() },
	}); err != nil {
		return fmt.Errorf("watching nodes: %w", err)
	}
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	if !cache.WaitForCacheSync(ctx.Done(), nodes.Informer().HasSynced) {
		return nil
	}
	events, err := subscribe()
	if err != nil {
		return fmt.Errorf("watching the firewall: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel()
	watch.Go(func() {
		if err := watchFirewall(ctx, events, wake); err != nil {
			klog.FromContext(ctx).Error(err, "Following the firewall failed: after it has changed, Pods may have no network for five minutes")
		}
	})
	l := loop{cfg: cfg, nodes: func() []Node { return toNodes(nodes.Informer().GetStore().List()) }}
	return l.run(ctx, changed)
}

type loop struct {
	cfg   Config
	nodes func() []Node
	ready bool
	said  string // the last error, which is logged once
}

func (l *loop) run(ctx context.Context, changed <-chan struct{}) error {
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
		done, err := l.sync(log)
		if done && !l.ready {
			l.ready = true
			if l.cfg.Ready != nil {
				l.cfg.Ready()
			}
		}
		l.tell(log, err)
		if err == nil {
			delay = retryMin
			continue
		}
		retry, delay = time.After(delay), min(2*delay, retryMax)
	}
}

// tell says what is in the way, once.
func (l *loop) tell(log klog.Logger, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != l.said {
		log.Error(err, "Configuring the node network failed, trying again")
		if l.cfg.Report != nil {
			l.cfg.Report(err)
		}
	}
	l.said = text
}

// sync is observe, plan, act. It reports whether Pods can have a network, which they can without one to other nodes.
func (l *loop) sync(log klog.Logger) (bool, error) {
	wanted := want(l.cfg.NodeName, l.cfg.ClusterCIDR, l.cfg.ServiceCIDR, l.nodes())
	host, err := observe()
	if err != nil {
		return false, err
	}
	wanted.MTU = l.cfg.MTU
	if wanted.MTU == 0 {
		wanted.MTU = host.DefaultMTU
	}
	actions := append(planBase(l.cfg.ClusterCIDR, l.cfg.ServiceCIDR, l.cfg.ClusterDNS, host), plan(wanted, host)...)
	for _, a := range actions {
		log.V(2).Info("Changing the node network", "action", a.String(), "reason", a.Reason)
	}
	own, others := byOthers(actions)
	if err := act(own); err != nil {
		return false, err
	}
	// A firewall that cannot be changed is no reason to give Pods no network at all.
	later := errors.Join(act(others), syncForward(log, l.cfg.ClusterCIDR))
	if !wanted.PodCIDR.IsValid() {
		return false, later
	}
	// Last: with the configuration the runtime begins to start Pods.
	if err := configureCNI(l.cfg, wanted); err != nil {
		return false, errors.Join(err, later)
	}
	return true, later
}

// Routes are the destinations of the routes on this machine that are ours, those that lead nowhere included.
func Routes() ([]netip.Prefix, error) {
	host, err := observe()
	if err != nil {
		return nil, err
	}
	var to []netip.Prefix
	for _, r := range host.Routes {
		to = append(to, r.To)
	}
	return to, nil
}

// Cleanup removes everything that Setup and Run made, the interfaces of Pods that are left included. Kernel settings
// stay as they are. It is idempotent.
func Cleanup(cfg Config) error { return cleanup(cfg, resultsDir) }

func cleanup(cfg Config, results string) error {
	var errs []error
	host, err := observe()
	if err == nil {
		err = act(planRemoval(cfg.ClusterDNS, host))
	}
	errs = append(errs, err, syncForward(klog.Background(), netip.Prefix{}), removeRuleset(tableName))
	errs = append(errs, os.RemoveAll(cfg.IPAMDir), removeConflist(cfg.CNIConfDir))
	if cfg.CNIBinDir != "" {
		errs = append(errs, unlinkPlugins(cfg.CNIBinDir, results))
	}
	errs = append(errs, removeResults(results))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing the node network: %w", err)
	}
	return nil
}

// trimNode keeps of a Node in the cache what toNodes reads.
func trimNode(obj any) (any, error) {
	n, ok := obj.(*v1.Node)
	if !ok {
		return obj, nil
	}
	small := &v1.Node{Spec: v1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs}, Status: v1.NodeStatus{Addresses: n.Status.Addresses}}
	small.Name, small.ResourceVersion, small.UID = n.Name, n.ResourceVersion, n.UID
	return small, nil
}

func toNodes(objects []any) []Node {
	var nodes []Node
	for _, o := range objects {
		n, ok := o.(*v1.Node)
		if !ok {
			continue
		}
		node := Node{Name: n.Name}
		for _, cidr := range append([]string{n.Spec.PodCIDR}, n.Spec.PodCIDRs...) {
			if p, err := netip.ParsePrefix(cidr); err == nil && p.Addr().Is4() {
				node.PodCIDR = p.Masked()
				break
			}
		}
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); a.Type == v1.NodeInternalIP && err == nil && ip.Is4() {
				node.InternalIP = ip
				break
			}
		}
		nodes = append(nodes, node)
	}
	return nodes
}
