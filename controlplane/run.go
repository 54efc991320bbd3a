package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	"k8s.io/klog/v2"
	upstream "k8s.io/kubernetes/pkg/controlplane/apiserver"

	"flyball.dev/controlplane/pki"
	"flyball.dev/controlplane/space"
	_ "flyball.dev/controlplane/version" // the components report the version that they are
)

// Run starts the control plane and returns when ctx ends or a component fails, after all components
// have stopped in reverse order. It leaves no socket and no lock behind. If the port is in use, the
// error wraps syscall.EADDRINUSE.
func Run(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	if err := space.Await(ctx, cfg.etcdDir(), func(short error) { reportSpace(cfg, short) }); err != nil {
		return failure(ctx)
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
	c, err := prepare(cfg)
	if err != nil {
		return err
	}
	c.apiServer.listener = listener
	// Upstream's components log for their developers, through the logger in their context; see
	// LogTo.
	return c.run(klog.NewContext(ctx, klog.Background()), cfg)
}

// components are those of one server, configured and not started.
type components struct {
	etcd              etcdServer
	apiServer         apiServer
	controllerManager controllerManager
	scheduler         scheduler
	certificates      certificates
	bootstrap         bootstrap
	approver          csrApprover
	disk              diskGuard
}

// run runs the components until ctx ends or one of them fails.
func (c *components) run(ctx context.Context, cfg Config) error {
	g := newGroup(ctx, cfg.progress)
	etcd := g.start(c.etcd)
	api := g.start(c.apiServer, etcd)
	g.start(c.controllerManager, api)
	g.start(c.scheduler, api)
	g.start(c.certificates, api)
	bootstrapped := g.start(c.bootstrap, api)
	g.start(c.approver, bootstrapped) // its role is one of the manifests
	g.start(c.disk, bootstrapped)     // refusing a write of kube-apiserver's start would end the process
	return g.wait()
}

// prepare creates or checks the files that the components start with, and their options. It starts
// nothing.
func prepare(cfg Config) (*components, error) {
	cluster, existing, err := readCluster(cfg)
	if err != nil {
		return nil, err
	}
	store := pki.Store{Dir: cfg.server("pki"), Existing: existing, Life: cmp.Or(cfg.certificateLife, pki.LeafLife)}
	creds, err := ensureCredentials(cfg, store)
	if err != nil {
		return nil, err
	}
	store.Existing = true
	encryption, err := ensureEncryption(cfg, existing)
	if err != nil {
		return nil, err
	}
	if err := cluster.write(cfg); err != nil {
		return nil, err
	}
	guard := newGuard(cfg)
	c := &components{
		etcd:         etcdServer{cfg: cfg, clusterID: cluster.ID},
		apiServer:    apiServer{admin: creds.admin, guard: guard},
		certificates: certificates{cfg: cfg, store: store},
		bootstrap:    bootstrap{cfg: cfg, creds: creds},
		approver:     csrApprover{cfg: cfg, kubeconfig: creds.approver},
		disk:         diskGuard{guard: guard, off: cfg.unguarded},
	}
	if c.apiServer.options, err = parseAPIServer(apiServerFlags(cfg, creds, encryption)); err != nil {
		return nil, err
	}
	if c.scheduler.options, err = parseScheduler(schedulerFlags(creds)); err != nil {
		return nil, err
	}
	if c.controllerManager.options, err = parseControllerManager(controllerManagerFlags(cfg, creds)); err != nil {
		return nil, err
	}
	return c, setUpstreamGlobals()
}

// identityRenewal is how often kube-apiserver renews the Lease that names it, which is valid for an
// hour. Upstream's ten seconds would cause a third of what an idle node writes to its disk.
const identityRenewal = 20 * time.Minute

// setUpstreamGlobals sets the variables that all servers in this process share, before any
// component reads them.
var setUpstreamGlobals = sync.OnceValue(func() error {
	upstream.IdentityLeaseRenewIntervalPeriod = identityRenewal
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // as upstream's commands do: they know which APIs are deprecated
	if err := compatibility.DefaultComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("setting feature gates: %w", err)
	}
	return nil
})

// parse sets flags in all of a component's flag sets.
func parse(sets cliflag.NamedFlagSets, args []string) error {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, fs := range sets.FlagSets {
		all.AddFlagSet(fs)
	}
	return all.Parse(args)
}
