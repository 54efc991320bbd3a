package plugins

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	// resyncPeriod is how long a lost event of the file system delays a registration.
	resyncPeriod = time.Minute
	// A driver that does not answer, or answers an error, is called again. The first time comes soon,
	// since a socket exists for a moment before its driver listens.
	firstRetry, lastRetry = 50 * time.Millisecond, 2 * time.Minute
)

// Handler takes the plugins of one type. Calls for one name never overlap; calls for several do.
type Handler interface {
	// Validate says whether the handler takes the plugin, from its name and versions alone. It does
	// not block. The driver gets the error in words.
	Validate(p Plugin) error
	// Register takes the plugin, in place of one of the same name if there is one. It may call the
	// driver until ctx ends. After an error it is called again, and nothing has changed.
	Register(ctx context.Context, p Plugin) error
	// Deregister forgets the plugin. The driver is gone, and no newer one of this name is registered.
	Deregister(p Plugin)
}

// Config of a Controller.
type Config struct {
	// Dir is RootDir/plugins_registry. It is made if it does not exist.
	Dir string
	// Handlers by the type that drivers name in GetInfo, such as registerapi.CSIPlugin.
	Handlers map[string]Handler
	// Report is called with each failed attempt. It is tried again. Optional.
	Report func(error)
}

// Controller registers plugins.
type Controller struct {
	cfg   Config
	limit workqueue.TypedRateLimiter[string] // by path
	state state
	// calls are under way, by the path of the socket; each is cancelled when its socket changes.
	calls map[string]call
	done  chan func() // results, applied by Run alone
	wg    sync.WaitGroup
}

type call struct {
	file   file
	cancel context.CancelFunc
}

// New returns a Controller that does nothing before Run.
func New(cfg Config) *Controller {
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	return &Controller{
		cfg:   cfg,
		limit: workqueue.NewTypedItemExponentialFailureRateLimiter[string](firstRetry, lastRetry),
		state: state{map[string]*socket{}, map[key]registration{}, map[key]bool{}},
		calls: map[string]call{}, done: make(chan func()),
	}
}

// Run registers the plugins whose sockets exist, and follows changes until ctx ends. Plugins stay
// registered then: their drivers run on. It fails if the file system cannot be watched.
func (c *Controller) Run(ctx context.Context) error {
	watch, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the registration sockets of plugins: %w", err)
	}
	defer watch.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer c.wg.Wait()
	defer cancel()
	resync := time.NewTicker(resyncPeriod)
	defer resync.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	if err := c.observe(watch); err != nil {
		return err
	}
	for {
		actions, next := plan(c.state, time.Now())
		for _, a := range actions {
			c.act(ctx, a)
		}
		if !next.IsZero() {
			retry.Reset(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return nil
		case apply := <-c.done:
			apply()
			continue
		case <-retry.C:
			continue
		case <-watch.Events:
		case err := <-watch.Errors:
			klog.FromContext(ctx).V(2).Info("Events of registration sockets were lost", "err", err)
		case <-resync.C:
		}
		if err := c.observe(watch); err != nil {
			c.cfg.Report(err)
		}
	}
}

// observe notes which sockets are there now. One that was replaced is a new one.
func (c *Controller) observe(watch *fsnotify.Watcher) error {
	found, err := scan(c.cfg.Dir, watch)
	if err != nil {
		return err
	}
	for path, k := range c.state.sockets {
		if now, there := found[path]; !there || now != k.file {
			delete(c.state.sockets, path)
			c.limit.Forget(path)
		}
	}
	for path, call := range c.calls {
		if found[path] != call.file {
			call.cancel()
		}
	}
	for path, f := range found {
		if c.state.sockets[path] == nil {
			_, busy := c.calls[path] // with the socket that was there before
			c.state.sockets[path] = &socket{file: f, busy: busy}
		}
	}
	return nil
}
