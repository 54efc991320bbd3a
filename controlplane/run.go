package controlplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	controllermanageroptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
	scheduleroptions "k8s.io/kubernetes/cmd/kube-scheduler/app/options"

	"flyball.dev/controlplane/pki"
	"flyball.dev/controlplane/space"
	_ "flyball.dev/controlplane/version" // the parts report the version that they are
)

// startPatience is how long kube-apiserver may take to get ready after it was told to stop. It is long, because a hook
// that is interrupted ends the process at once, and short of the half minute after which `flyball down` kills.
const startPatience = 20 * time.Second

// Run starts the control plane and returns when ctx ends, after all parts have been stopped in reverse order, or when a part
// fails. It leaves no socket and no lock behind. The error of a port in use wraps syscall.EADDRINUSE.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.validate(); err != nil {
		return err
	}
	if err := space.Await(ctx, cfg.etcdDir(), func(short error) { reportSpace(cfg, short) }); err != nil {
		return cause(ctx, err)
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
	r := &runner{cfg: cfg, guard: newGuard(cfg)}
	if err := r.prepare(); err != nil {
		return err
	}
	// Upstream's components log what is for their developers, through the logger in their context; see LogTo.
	return r.run(klog.NewContext(ctx, klog.Background()), listener)
}

// runner holds what the parts of one Run share.
type runner struct {
	cfg   Config
	store pki.Store
	creds *credentials
	guard *space.Guard

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
	r.store = pki.Store{Dir: r.cfg.server("pki"), Existing: existing, Life: cmp.Or(r.cfg.certificateLife, pki.LeafLife)}
	if r.creds, err = ensureCredentials(r.cfg, r.store); err != nil {
		return err
	}
	r.store.Existing = true
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
	// All components share one registry of feature gates. It is set before any of them reads it.
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
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
	if err := etcdReady(ctx, etcd); err != nil {
		return cause(ctx, err)
	}
	if err := claimDatabase(ctx, etcd, r.cfg); err != nil {
		return cause(ctx, err)
	}
	r.cfg.progress(PartEtcd, StateUp, nil)
	ready := make(chan struct{})
	apiServer := r.start(ctx, PartAPIServer, fail, func(ctx context.Context, _ func()) error {
		go func() {
			if waitReady(ctx, r.creds.admin) == nil {
				close(ready)
			}
		}()
		return runAPIServer(ctx, r.apiServer, listener, r.guard)
	})
	parts.push(func() {
		// A hook that is interrupted while it sets up the server ends the process. Let it finish.
		select {
		case <-ready:
		case <-apiServer.done:
		case <-time.After(startPatience):
		}
		apiServer.stop()
	})
	select {
	case <-ready:
	case <-ctx.Done():
		return cause(ctx, nil)
	}
	r.cfg.progress(PartAPIServer, StateUp, nil)
	parts.push(r.start(ctx, PartControllerManager, fail, func(ctx context.Context, up func()) error {
		return runControllerManager(ctx, r.controllerManager, up)
	}).stop)
	parts.push(r.start(ctx, PartScheduler, fail, func(ctx context.Context, up func()) error {
		return runScheduler(ctx, r.scheduler, up)
	}).stop)
	parts.push(r.start(ctx, PartCertificates, fail, r.keepCredentials).stop)
	bootstrapped := make(chan struct{})
	parts.push(r.start(ctx, PartBootstrap, fail, func(ctx context.Context, up func()) error {
		return bootstrap(ctx, r.cfg, r.creds, sync.OnceFunc(func() { close(bootstrapped); up() }))
	}).stop)
	parts.push(r.start(ctx, PartApprover, fail, func(ctx context.Context, up func()) error {
		select { // its role is among the manifests
		case <-bootstrapped:
		case <-ctx.Done():
			return nil
		}
		return runApprover(ctx, r.cfg, r.creds, up)
	}).stop)
	parts.push(r.start(ctx, PartDisk, fail, func(ctx context.Context, up func()) error {
		up()
		select { // a write of the start that is refused would end the process
		case <-bootstrapped:
		case <-ctx.Done():
		}
		if !r.cfg.unguarded {
			r.guard.Run(ctx)
		}
		<-ctx.Done()
		return nil
	}).stop)
	select {
	case <-ctx.Done():
	case err := <-etcd.Err():
		return fmt.Errorf("running etcd: %w", err)
	case <-etcd.Server.StopNotify():
		return errors.New("running etcd: it stopped by itself; see the log")
	}
	return cause(ctx, nil)
}

// part is something that runs; done is closed when it has ended.
type part struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// stop ends the part and waits until it has ended.
func (p part) stop() { p.cancel(); <-p.done }

// start runs a part until it is stopped. The part's context does not end with ctx, so that parts can be stopped one after
// the other. If the part ends by itself, fail is told why.
func (r *runner) start(ctx context.Context, name string, fail func(error), run func(ctx context.Context, up func()) error) part {
	r.cfg.progress(name, StateStarting, nil)
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := part{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		err := run(ctx, func() { r.cfg.progress(name, StateUp, nil) })
		switch {
		case ctx.Err() != nil:
			err = nil // it was stopped; what it says of that is of no interest
		case err == nil:
			err = fmt.Errorf("running %s: it ended by itself; see the log", name)
		}
		if err != nil {
			fail(err)
		}
		r.cfg.progress(name, StateDown, err)
	}()
	return p
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
	for _, stop := range slices.Backward(s.stops) {
		stop()
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
