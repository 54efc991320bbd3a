package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"flyball.dev/nft"
)

// Config is what the proxy needs.
type Config struct {
	// NodeName is the Node whose endpoints are local and whose Pods may have host ports.
	NodeName string

	// NodeIPs are this host's addresses in the cluster.
	NodeIPs []netip.Addr

	// Client reaches the API server, directly and not through a Service.
	Client *rest.Config

	// ClusterCIDRs are where Pods live: others are masqueraded when they use a cluster IP.
	// Optional.
	ClusterCIDRs []netip.Prefix

	// ServiceCIDRs are where cluster IPs live: connections to those that no Service has are
	// rejected. Optional; without it they are left to the routes.
	ServiceCIDRs []netip.Prefix

	// Ready is called once, when every Service known at the start works. Optional.
	Ready func()
}

const (
	// resyncPeriod is how often the table is compared with what it should be: a safety net, in case
	// another program changed it.
	resyncPeriod = 5 * time.Minute

	retryMin = 100 * time.Millisecond
	retryMax = 30 * time.Second

	// maxClasses bounds the chains that no Service uses any more.
	maxClasses = 1000
)

// Run keeps the table as Services, EndpointSlices and Pods want it until ctx is cancelled. It then
// leaves everything in place, so that connections go on while Flyball restarts; Cleanup removes it.
// It fails if the first table cannot be written; later failures are logged and tried again.
func Run(ctx context.Context, cfg Config) error {
	client, err := kubernetes.NewForConfig(cfg.Client)
	if err != nil {
		return fmt.Errorf("creating the proxy's client: %w", err)
	}
	return newController(cfg, client, newTable(cfg, nft.Kernel{}), nft.Kernel{}).run(ctx)
}

// Cleanup removes what the proxy left in the kernel: its table, and the conntrack entries of
// connections to Services, which nothing would translate any more if their clients went on.
func Cleanup() error { return cleanup(newTable(Config{}, nft.Kernel{}), nft.Kernel{}) }

func cleanup(t *table, conntrack conntrackTable) error {
	removed := removedFrontends(t.frontends())
	if err := t.remove(); err != nil {
		return err
	}
	if len(removed) == 0 {
		return nil
	}
	return conntrack.DeleteConnections(t.fam.Family, removed.translated)
}

// controller is the loop: its caches observe, its state plans, its table acts.
type controller struct {
	cfg       Config
	client    kubernetes.Interface
	caches    *caches
	state     *State
	table     *table
	conntrack conntrackTable
	health    *health
	localnet  localnet
	events    record.EventRecorder

	created int // classes since the last rebuild
}

func newController(cfg Config, client kubernetes.Interface, t *table, conntrack conntrackTable) *controller {
	return &controller{
		cfg: cfg, client: client, caches: newCaches(client, cfg.NodeName), state: NewState(),
		table: t, conntrack: conntrack, health: newHealth(), localnet: localnet{},
	}
}

func (c *controller) run(ctx context.Context) error {
	log := klog.FromContext(ctx)
	watching, cancel := context.WithCancel(ctx)
	defer c.caches.stop()
	defer cancel()
	if err := c.caches.start(watching); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { _ = c.health.close() }()
	broadcaster := record.NewBroadcaster(record.WithContext(watching))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: c.client.CoreV1().Events("")})
	source := corev1.EventSource{Component: "flyball-proxy", Host: c.cfg.NodeName}
	c.events = broadcaster.NewRecorder(scheme.Scheme, source)

	c.plan(log)
	if err := c.rebuild(log); err != nil {
		return err
	}
	if c.cfg.Ready != nil {
		c.cfg.Ready()
	}
	resync := time.NewTicker(resyncPeriod)
	defer resync.Stop()
	retry, delay := (<-chan time.Time)(nil), retryMin
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-c.caches.changed:
			// One change is written at once. Changes that come during a transaction make up the
			// next one.
			c.plan(log)
			if retry == nil {
				err = c.write(log)
			}
		case <-c.health.due:
			c.health.retry()
		case <-resync.C:
			err = c.check(log)
		case <-retry:
			retry = nil
			err = c.rebuild(log)
		}
		switch {
		case err != nil:
			log.Error(err, "Writing Services to the kernel failed, trying again", "after", delay)
			retry, delay = time.After(delay), min(2*delay, retryMax)
		case retry == nil:
			delay = retryMin
		}
	}
}

// plan observes each Service and Pod that changed, and records what it wants in the table.
func (c *controller) plan(log klog.Logger) {
	for _, r := range c.caches.take() {
		if r.pod {
			c.state.Set("pod/"+r.name, PlanPod(c.caches.pod(r.name)))
			continue
		}
		svc := c.caches.service(r.name)
		c.state.Set("service/"+r.name, c.state.PlanService(svc, c.cfg.NodeIPs))
		if err := c.health.set(svc); err != nil {
			log.Error(err, "Load balancers cannot ask for the health of a Service", "service", r.name)
			namespace, name, _ := strings.Cut(r.name, "/")
			c.events.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: namespace, Name: name},
				corev1.EventTypeWarning, "FailedToStartServiceHealthcheck", err.Error())
		}
	}
}

// write acts on what was planned: it writes the difference to what was written before.
func (c *controller) write(log klog.Logger) error {
	change := c.state.Take()
	if change.Empty() {
		return nil
	}
	c.created += len(change.Classes)
	if c.created > maxClasses {
		c.state.Failed(change)
		return c.rebuild(log)
	}
	start := time.Now()
	if err := c.table.apply(change); err != nil {
		c.state.Failed(change)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		log.Info("Another program removed the nftables table, writing it again", "error", err.Error())
		return c.rebuild(log)
	}
	c.follow(log, change)
	log.V(2).Info("Services written", "owners", change.Owners, "added", len(change.Add), "deleted", len(change.Delete),
		"classes", len(change.Classes), "took", time.Since(start))
	return nil
}

// rebuild writes everything.
func (c *controller) rebuild(log klog.Logger) error {
	start := time.Now()
	all := c.state.All()
	if err := c.table.rebuild(all); err != nil {
		c.state.Failed(all)
		return err
	}
	c.created = 0
	c.follow(log, all)
	log.V(2).Info("All Services written",
		"elements", len(all.Add), "classes", len(all.Classes), "took", time.Since(start))
	return nil
}

// follow does what must follow new rules: it deletes conntrack entries that the old rules made, and
// opens host ports. Its failures do not make the rules wrong.
func (c *controller) follow(log klog.Logger, change Change) {
	if current := newUDPEndpoints(change.Stale); len(current) > 0 {
		if err := c.conntrack.DeleteConnections(c.table.fam.Family, current.stale); err != nil {
			log.Error(err, "UDP clients may talk to endpoints that are gone")
		}
	}
	if err := c.localnet.allow(change.Add); err != nil {
		log.Error(err, "Host ports may not answer on 127.0.0.1")
	}
}

// check rebuilds the table if another program changed it.
func (c *controller) check(log klog.Logger) error {
	if err := c.write(log); err != nil {
		return err
	}
	if c.table.intact(c.state.Count()) {
		return nil
	}
	log.Info("Another program changed the nftables table, writing it again")
	return c.rebuild(log)
}
