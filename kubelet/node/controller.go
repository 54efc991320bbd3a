package node

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/wait"

	"flyball.dev/internal/trigger"
)

// Controller registers the Node, renews its Lease and keeps its status up to date.
type Controller struct {
	cfg  Config
	self identity

	// What the status loop remembers. It saves calls and writes, and is not needed for correctness.
	runtime     runtimeState
	images      []v1.ContainerImage
	imagesAt    time.Time // of the last list
	listImages  bool      // they may have changed
	pressureAt  map[v1.NodeConditionType]time.Time
	written     *v1.Node // our last write: the watch may lag behind it
	signalReady sync.Once
}

// New returns a Controller that does nothing until Run.
func New(cfg Config) *Controller {
	cfg.LeaseDuration = cmp.Or(cfg.LeaseDuration, DefaultLeaseDuration)
	if cfg.Source == nil {
		cfg.Source = NewWatch(cfg.Client, cfg.Name)
	}
	if cfg.Trigger == nil {
		cfg.Trigger = trigger.New()
	}
	if cfg.Host.Addresses == nil {
		cfg.Host.Addresses = addresses(cfg.Name, cfg.IPs)
	}
	self := identity{name: cfg.Name, port: cfg.Port, labels: cfg.Labels, host: cfg.Host}
	return &Controller{cfg: cfg, self: self, pressureAt: map[v1.NodeConditionType]time.Time{}}
}

// Run registers the Node, then renews its Lease and reports its status until ctx ends. It does not
// delete the Node: the agent may only be restarting.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.register(ctx); err != nil {
		return err
	}
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { c.renewLease(ctx) })
	loops.Go(func() { c.cfg.Source.Run(ctx, c.nodeChanged) })
	var pause time.Duration
	for ctx.Err() == nil {
		pause = c.reconcile(ctx, pause)
		select {
		case <-ctx.Done():
		case <-c.cfg.Trigger:
			pause, c.listImages = 0, true // a change: the back-off begins again
		case <-time.After(pause):
		}
	}
	return nil
}

func (c *Controller) nodeChanged() {
	c.Recheck()
	if c.cfg.Changed != nil {
		c.cfg.Changed()
	}
}

// Recheck requests that the status is observed now, and written if it changed: after an image was
// pulled, for example. It never blocks.
func (c *Controller) Recheck() { c.cfg.Trigger.Set() }

// Object returns the Node as last watched, nil before that. It must not be changed.
func (c *Controller) Object() *v1.Node { return c.cfg.Source.Node() }

// register creates the Node, with its status, so that a host whose runtime is ready is Ready from
// the first moment. It retries until ctx ends. An existing Node is left to reconcile.
func (c *Controller) register(ctx context.Context) error {
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Cap: 7 * time.Second, Steps: 1 << 30}
	for {
		err := c.create(ctx, plan(c.self, c.observe(ctx), 0, time.Now()))
		if err == nil {
			c.cfg.Recorder.Event(Reference(c.cfg.Name), v1.EventTypeNormal, "Starting", "Starting kubelet.")
			return nil
		}
		c.report(ctx, fmt.Errorf("registering the Node, which is retried; the API server must be reachable and know "+
			"the identity system:node:%s: %w", c.cfg.Name, err))
		select {
		case <-ctx.Done():
			return fmt.Errorf("registering Node %s: %w", c.cfg.Name, context.Cause(ctx))
		case <-time.After(backoff.Step()):
		}
	}
}

// reconcile brings the Node up to date once and returns when to do so next. pause is what the
// call before returned, for the back-off while the runtime is not ready.
func (c *Controller) reconcile(ctx context.Context, pause time.Duration) time.Duration {
	existing, err := c.get(ctx)
	if err != nil {
		c.report(ctx, fmt.Errorf("updating the status of the Node, which is retried: %w", err))
		return retryLatest
	}
	if existing == nil {
		// An administrator who deletes a Node removes the host from the cluster. It must not come
		// back by itself.
		c.report(ctx, fmt.Errorf("updating the status of the Node: Node %s was deleted; restart the node agent to "+
			"register it again, or stop it", c.cfg.Name))
		return StatusUpdateFrequency
	}
	state := c.observe(ctx)
	state.existing = existing
	out := plan(c.self, state, pause, time.Now())
	if out.write == nil {
		c.reportReady(out) // after a restart the API server may have all of it already
		return out.requeueAfter
	}
	if err := c.update(ctx, out); err != nil {
		c.report(ctx, fmt.Errorf("updating the status of the Node (%s), which is retried: %w", out.reason, err))
		return retryLatest
	}
	return out.requeueAfter
}

// get returns the newest Node known: the watched one, or our own write if that is newer. It returns
// nil if there is none.
func (c *Controller) get(ctx context.Context) (*v1.Node, error) {
	cached := c.Object()
	if cached == nil { // deleted, or not watched yet: the watch may lag behind our own creation
		n, err := c.cfg.Client.CoreV1().Nodes().Get(ctx, c.cfg.Name, metav1.GetOptions{})
		if err == nil {
			return n, nil
		} else if apierrors.IsNotFound(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("getting Node %s: %w", c.cfg.Name, err)
	}
	if c.written != nil && cached.UID == c.written.UID {
		newer, err := resourceversion.CompareResourceVersion(c.written.ResourceVersion, cached.ResourceVersion)
		if err == nil && newer > 0 {
			return c.written, nil
		}
	}
	return cached, nil
}

func addresses(name string, ips []netip.Addr) []v1.NodeAddress {
	internal := lo.Map(ips, func(ip netip.Addr, _ int) v1.NodeAddress {
		return v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip.String()}
	})
	return append(internal, v1.NodeAddress{Type: v1.NodeHostName, Address: name})
}
