package plugins

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

const (
	// askTimeout bounds each call of a driver's registration socket, as in upstream's kubelet.
	askTimeout = 10 * time.Second
	// registerTimeout is for a handler that calls the driver: some start slowly.
	registerTimeout = 2 * time.Minute
)

// act begins an action. Its result is applied by Run.
func (c *Controller) act(ctx context.Context, a action) {
	logger := klog.FromContext(ctx).WithValues("socket", a.from.path)
	logger.V(2).Info("Registration of plugins", "action", a.do, "plugin", a.plugin.Name, "reason", a.reason)
	name := a.plugin.key()
	switch a.do {
	case ask:
		c.call(ctx, a, func(ctx context.Context) (func(), error) {
			p, err := c.ask(ctx, a.from.path)
			return func() {
				if k := c.socket(a.from); k != nil && err == nil {
					k.plugin = &p
				}
			}, err
		})
	case register:
		c.state.changing[name] = true
		c.call(ctx, a, func(ctx context.Context) (func(), error) {
			err := c.register(ctx, a.plugin)
			return func() {
				delete(c.state.changing, name)
				if err == nil {
					c.state.registered[name] = registration{a.plugin, a.from}
				}
			}, err
		})
	case deregister:
		c.state.changing[name] = true
		c.wg.Go(func() {
			c.cfg.Handlers[a.plugin.Type].Deregister(a.plugin)
			c.apply(ctx, func() {
				delete(c.state.changing, name)
				delete(c.state.registered, name)
			})
		})
	}
}

// call calls the driver behind a socket, until the socket changes. The result says what follows.
func (c *Controller) call(ctx context.Context, a action, do func(context.Context) (func(), error)) {
	own, cancel := context.WithCancel(ctx)
	c.calls[a.from.path] = call{a.from.file, cancel}
	c.state.sockets[a.from.path].busy = true
	c.wg.Go(func() {
		defer cancel()
		result, err := do(own)
		c.apply(ctx, func() {
			result()
			delete(c.calls, a.from.path)
			if now := c.state.sockets[a.from.path]; now != nil {
				now.busy = false // for a new socket at this path too
			}
			k := c.socket(a.from)
			switch {
			case k == nil: // a failure was of a socket that is gone
			case err == nil:
				c.limit.Forget(a.from.path)
			default:
				c.cfg.Report(fmt.Errorf("registering the plugin at %s: %w", a.from.path, err))
				k.retry = time.Now().Add(c.limit.When(a.from.path))
			}
		})
	})
}

// socket returns the socket if it is still the same.
func (c *Controller) socket(from source) *socket {
	if k := c.state.sockets[from.path]; k != nil && k.file == from.file {
		return k
	}
	return nil
}

// apply lets Run apply a result.
func (c *Controller) apply(ctx context.Context, result func()) {
	select {
	case c.done <- result:
	case <-ctx.Done():
	}
}

// ask returns what the driver says about itself, if its handler accepts that.
func (c *Controller) ask(ctx context.Context, path string) (p Plugin, err error) {
	err = connect(path, func(client registerapi.RegistrationClient) error {
		asking, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		info, err := client.GetInfo(asking, &registerapi.InfoRequest{})
		if err != nil {
			return fmt.Errorf("asking the driver what it is: %w", err)
		}
		p = Plugin{
			Type: info.GetType(), Name: info.GetName(), Socket: path,
			Endpoint: cmp.Or(info.GetEndpoint(), path), Versions: info.GetSupportedVersions(),
		}
		if err = c.validate(p); err != nil {
			return errors.Join(err, notify(ctx, client, err))
		}
		return nil
	})
	return p, err
}

func (c *Controller) validate(p Plugin) error {
	handler := c.cfg.Handlers[p.Type]
	switch {
	case handler == nil:
		return fmt.Errorf("this node takes no plugins of the type %q", p.Type)
	case p.Name == "":
		return errors.New("the driver says no name")
	case len(p.Versions) == 0:
		return fmt.Errorf("the driver %s says no version", p.Name)
	}
	return handler.Validate(p)
}

// register hands the plugin to its handler, and tells the driver what came of it.
func (c *Controller) register(ctx context.Context, p Plugin) error {
	registering, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	failed := c.cfg.Handlers[p.Type].Register(registering, p)
	err := connect(p.Socket, func(client registerapi.RegistrationClient) error { return notify(ctx, client, failed) })
	if err != nil { // the handler has the plugin nevertheless
		klog.FromContext(ctx).Error(err, "Driver does not know what came of its registration", "plugin", p.Name)
	}
	return failed
}

// notify tells the driver whether it is registered, or why not.
func notify(ctx context.Context, client registerapi.RegistrationClient, failed error) error {
	status := &registerapi.RegistrationStatus{PluginRegistered: failed == nil}
	if failed != nil {
		status.Error = failed.Error()
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if _, err := client.NotifyRegistrationStatus(ctx, status); err != nil {
		return fmt.Errorf("telling the driver whether it is registered: %w", err)
	}
	return nil
}

// connect calls do with a client of the socket, which connects at its first call.
func connect(path string, do func(registerapi.RegistrationClient) error) error {
	conn, err := grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}))
	if err != nil {
		return fmt.Errorf("connecting to the driver: %w", err)
	}
	defer conn.Close()
	return do(registerapi.NewRegistrationClient(conn))
}
