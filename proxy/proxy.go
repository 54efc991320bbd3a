package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// Config is what the proxy needs.
type Config struct {
	// NodeName is the Node whose endpoints are local and whose Pods may have host ports.
	NodeName string

	// NodeIPs are this host's addresses in the cluster.
	NodeIPs []netip.Addr

	// Client reaches the API server, directly and not through a Service.
	Client *rest.Config

	// ClusterCIDR is where Pods live: others are masqueraded when they use a cluster IP. Optional.
	ClusterCIDR netip.Prefix

	// ServiceCIDR is where cluster IPs live: connections to those that nobody has are rejected.
	// Optional; without it they are left to the routes.
	ServiceCIDR netip.Prefix

	// Ready is called once, when every Service known at the start works. Optional.
	Ready func()
}

// resyncPeriod is how often the table is compared with what it should be. That is a net under what
// nobody should do: changing it by hand.
const resyncPeriod = 5 * time.Minute

// Run keeps the table as Services, EndpointSlices and Pods want it until ctx ends. It then leaves
// everything in place, so that connections go on while Flyball restarts; Cleanup takes it away. It
// fails if the first table cannot be written; later failures are logged and tried again.
func Run(ctx context.Context, cfg Config) error {
	client, err := kubernetes.NewForConfig(cfg.Client)
	if err != nil {
		return fmt.Errorf("creating the proxy's client: %w", err)
	}
	handle, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("opening netlink for conntrack (root is needed): %w", err)
	}
	defer handle.Close()
	return newProxy(cfg, client, newKernel(cfg, 0), handle).run(ctx)
}

// Cleanup removes what the proxy left in the kernel: its table, and the conntrack entries of
// connections to Services, which nothing would translate any more if their clients went on.
func Cleanup() error {
	handle, err := netlink.NewHandle()
	if err != nil {
		return fmt.Errorf("opening netlink for conntrack (root is needed): %w", err)
	}
	defer handle.Close()
	return cleanup(newKernel(Config{}, 0), conntrack{handle})
}

func cleanup(k *kernel, c conntrack) error {
	frontends, err := k.frontends()
	if err != nil {
		return err
	}
	if err := k.remove(); err != nil {
		return err
	}
	return c.forget(frontends)
}

type proxy struct {
	cfg       Config
	observer  *observer
	state     *State
	kernel    *kernel
	conntrack conntrack
	health    *health
	localnet  *localnet
	client    kubernetes.Interface
	events    record.EventRecorder

	created int // classes since the last rebuild
}

func newProxy(cfg Config, client kubernetes.Interface, k *kernel, handle *netlink.Handle) *proxy {
	return &proxy{
		cfg: cfg, observer: newObserver(client, cfg.NodeName), state: NewState(),
		kernel: k, conntrack: conntrack{handle}, health: newHealth(), localnet: newLocalnet(handle),
		client: client,
	}
}

func (p *proxy) run(ctx context.Context) error {
	log := klog.FromContext(ctx)
	watching, cancel := context.WithCancel(ctx)
	defer p.observer.stop()
	defer cancel()
	if err := p.observer.start(watching); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer func() { _ = p.health.close() }()
	broadcaster := record.NewBroadcaster(record.WithContext(watching))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: p.client.CoreV1().Events("")})
	p.events = broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "flyball-proxy", Host: p.cfg.NodeName})

	p.plan(log, p.observer.take())
	if err := p.rebuild(log); err != nil {
		return err
	}
	if p.cfg.Ready != nil {
		p.cfg.Ready()
	}
	resync := time.NewTicker(resyncPeriod)
	defer resync.Stop()
	retry, delay := (<-chan time.Time)(nil), 100*time.Millisecond
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-p.observer.changed:
			// One change is written at once; what comes while a transaction is under way makes up
			// the next one.
			p.plan(log, p.observer.take())
			if retry == nil {
				err = p.flush(log)
			}
		case <-p.health.due:
			p.health.retry()
		case <-resync.C:
			err = p.check(log)
		case <-retry:
			retry = nil
			err = p.rebuild(log)
		}
		switch {
		case err != nil:
			log.Error(err, "Writing Services to the kernel failed, trying again", "after", delay)
			retry, delay = time.After(delay), min(2*delay, 30*time.Second)
		case retry == nil:
			delay = 100 * time.Millisecond
		}
	}
}

// plan records what the named Services and Pods want now.
func (p *proxy) plan(log klog.Logger, dirty []ref) {
	for _, r := range dirty {
		if r.pod {
			p.state.Set("pod/"+r.name, PlanPod(p.observer.pod(r.name)))
			continue
		}
		svc := p.observer.service(r.name)
		p.state.Set("service/"+r.name, p.state.PlanService(svc, p.cfg.NodeIPs))
		if err := p.health.set(svc); err != nil {
			log.Error(err, "Load balancers cannot ask for the health of a Service", "service", r.name)
			namespace, name, _ := strings.Cut(r.name, "/")
			p.events.Event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: namespace, Name: name},
				corev1.EventTypeWarning, "FailedToStartServiceHealthcheck", err.Error())
		}
	}
}

// maxClasses bounds the chains that nobody uses any more.
const maxClasses = 1000

// flush writes what changed.
func (p *proxy) flush(log klog.Logger) error {
	c := p.state.Take()
	if c.Empty() {
		return nil
	}
	p.created += len(c.Classes)
	if p.created > maxClasses {
		p.state.Failed(c)
		return p.rebuild(log)
	}
	start := time.Now()
	if err := p.kernel.apply(c); err != nil {
		p.state.Failed(c)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		log.Info("Somebody removed our nftables table, writing it anew", "error", err.Error())
		return p.rebuild(log)
	}
	p.after(log, c)
	log.V(2).Info("Services written", "owners", c.Owners, "added", len(c.Add), "deleted", len(c.Delete),
		"classes", len(c.Classes), "took", time.Since(start))
	return nil
}

// rebuild writes everything.
func (p *proxy) rebuild(log klog.Logger) error {
	start := time.Now()
	c := p.state.All()
	if err := p.kernel.rebuild(c); err != nil {
		p.state.Failed(c)
		return err
	}
	p.created = 0
	p.after(log, c)
	log.V(2).Info("All Services written", "elements", len(c.Add), "classes", len(c.Classes), "took", time.Since(start))
	return nil
}

// after does what must follow new rules: connections were decided by the old ones. Its failures do
// not make the rules wrong.
func (p *proxy) after(log klog.Logger, c Change) {
	if err := p.conntrack.clean(c.Stale); err != nil {
		log.Error(err, "UDP clients may talk to endpoints that are gone")
	}
	if err := p.localnet.allow(c.Add); err != nil {
		log.Error(err, "Host ports may not answer on 127.0.0.1")
	}
}

// check rebuilds the table if somebody else changed it.
func (p *proxy) check(log klog.Logger) error {
	if err := p.flush(log); err != nil {
		return err
	}
	ok, err := p.kernel.intact(p.state.Count())
	if err != nil || ok {
		return err
	}
	log.Info("Somebody changed our nftables table, writing it anew")
	return p.rebuild(log)
}
