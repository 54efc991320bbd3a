package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"flyball.dev/controlplane/pki"
	_ "flyball.dev/controlplane/version" // the parts report the version that they are
)

// Run starts the control plane and returns when ctx ends, after all parts have been stopped in reverse order, or when a part
// fails. It leaves no socket and no lock behind. The error of a port in use wraps syscall.EADDRINUSE.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.validate(); err != nil {
		return err
	}
	lock, err := lockDataDir(cfg)
	if err != nil {
		return err
	}
	defer lock.Close()
	listener, err := net.Listen("tcp", net.JoinHostPort(cfg.BindAddress.String(), cfg.port()))
	if err != nil {
		return fmt.Errorf("opening the API port: %w", err)
	}
	defer listener.Close()
	r := &runner{cfg: cfg}
	if err := r.prepare(); err != nil {
		return err
	}
	// Upstream's components log what is for their developers, through the logger in their context; see LogTo.
	return r.run(klog.NewContext(ctx, klog.Background()), listener)
}

// runner holds what the parts of one Run share.
type runner struct {
	cfg   Config
	creds *credentials

	apiServer         *apiserveroptions.ServerRunOptions
	scheduler         *scheduleroptions.Options
	controllerManager *controllermanageroptions.KubeControllerManagerOptions
}

// prepare makes or checks the files that the parts are started with, and the parts' options. It starts nothing.
func (r *runner) prepare() error {
	cluster, existing, err := readCluster(r.cfg)
	if err != nil {
		return err
	}
	r.cfg.id = cluster.ID
	if r.creds, err = ensureCredentials(r.cfg, pki.Store{Dir: r.cfg.server("pki"), Existing: existing}); err != nil {
		return err
	}
	encryption, err := ensureEncryption(r.cfg, existing)
	if err != nil {
		return err
	}
	if err := cluster.write(r.cfg); err != nil {
		return err
	}
	if r.apiServer, err = parseAPIServer(apiServerFlags(r.cfg, r.creds, encryption)); err != nil {
		return err
	}
	if r.scheduler, err = parseScheduler(schedulerFlags(r.creds)); err != nil {
		return err
	}
	if r.controllerManager, err = parseControllerManager(controllerManagerFlags(r.cfg, r.creds)); err != nil {
		return err
	}
	// All components share one registry of feature gates. It is set once, before any of them reads it.
	if err := compatibility.DefaultComponentGlobalsRegistry.SetFallback(); err != nil {
		return fmt.Errorf("setting feature gates: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // as upstream's commands do: they know which APIs are deprecated
	return nil
}

func (r *runner) run(ctx context.Context, listener net.Listener) error {
	var parts stack
	defer parts.stopAll()
	r.cfg.progress(PartEtcd, StateStarting, nil)
	etcd, err := startEtcd(ctx, r.cfg)
	if err != nil {
		r.cfg.progress(PartEtcd, StateDown, err)
		return err
	}
	parts.push(func() { etcd.Close(); r.cfg.progress(PartEtcd, StateDown, nil) })

	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	// kube-apiserver need not wait for etcd: it connects to a socket that is open, and builds itself meanwhile.
	parts.push(r.start(ctx, PartAPIServer, fail, func(ctx context.Context, _ func()) error {
		return runAPIServer(ctx, r.apiServer, listener)
	}))
	if err := etcdReady(ctx, etcd); err != nil {
		return cause(ctx, err)
	}
	r.cfg.progress(PartEtcd, StateUp, nil)
	if err := waitReady(ctx, r.creds.admin); err != nil {
		return cause(ctx, err)
	}
	r.cfg.progress(PartAPIServer, StateUp, nil)
	parts.push(r.start(ctx, PartControllerManager, fail, func(ctx context.Context, up func()) error {
		return runControllerManager(ctx, r.controllerManager, up)
	}))
	parts.push(r.start(ctx, PartScheduler, fail, func(ctx context.Context, up func()) error {
		return runScheduler(ctx, r.scheduler, up)
	}))
	parts.push(r.start(ctx, PartBootstrap, fail, func(ctx context.Context, up func()) error {
		return bootstrap(ctx, r.cfg, r.creds.admin, up)
	}))
	select {
	case <-ctx.Done():
	case err := <-etcd.Err():
		return fmt.Errorf("running etcd: %w", err)
	case <-etcd.Server.StopNotify():
		return errors.New("running etcd: it stopped by itself; see the log")
	}
	return cause(ctx, nil)
}

// start runs part until the returned function is called, which stops it and waits until it has. The part's own context
// does not end with ctx, so that parts stop one after the other. An error of the part goes to fail.
func (r *runner) start(ctx context.Context, part string, fail func(error), run func(ctx context.Context, up func()) error) (stop func()) {
	r.cfg.progress(part, StateStarting, nil)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		err := run(ctx, func() { r.cfg.progress(part, StateUp, nil) })
		switch {
		case ctx.Err() != nil:
			err = nil // it was stopped; what it says of that is of no interest
		case err == nil:
			err = fmt.Errorf("running %s: it ended by itself; see the log", part)
		}
		if err != nil {
			fail(err)
		}
		r.cfg.progress(part, StateDown, err)
	}()
	return func() { cancel(); <-done }
}

// cause is why ctx ended: nil if its parent did, else the error of the part that failed; err if it has not ended.
func cause(ctx context.Context, err error) error {
	switch c := context.Cause(ctx); {
	case c == nil:
		return err
	case errors.Is(c, context.Canceled), errors.Is(c, context.DeadlineExceeded):
		return nil
	default:
		return c
	}
}

// stack stops what was started in reverse order.
type stack struct{ stops []func() }

func (s *stack) push(stop func()) { s.stops = append(s.stops, stop) }

func (s *stack) stopAll() {
	for i := len(s.stops) - 1; i >= 0; i-- {
		s.stops[i]()
	}
}

// parse sets flags in all of a component's flag sets.
func parse(sets cliflag.NamedFlagSets, args []string) error {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, fs := range sets.FlagSets {
		all.AddFlagSet(fs)
	}
	return all.Parse(args)
}
