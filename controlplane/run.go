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
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
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
	s, err := prepare(cfg)
	if err != nil {
		return err
	}
	s.apiServer.SecureServing.Listener = listener
	// Upstream's components log for their developers, through the logger in their context; see
	// LogTo.
	return s.run(klog.NewContext(ctx, klog.Background()))
}

// server is what the components of one server start with.
type server struct {
	cfg       Config
	clusterID string
	creds     *credentials
	store     pki.Store
	guard     *space.Guard
	apiServer *options.ServerRunOptions
}

// run runs the components until ctx ends or one of them fails.
func (s *server) run(ctx context.Context) error {
	g := newGroup(ctx, s.cfg.progress)
	etcd := g.start(PartEtcd, s.runEtcd)
	api := g.start(PartAPIServer, s.runAPIServer, etcd)
	g.start(PartControllerManager, s.runControllerManager, api)
	g.start(PartScheduler, s.runScheduler, api)
	g.start(PartCertificates, s.renewCertificates, api)
	bootstrapped := g.start(PartBootstrap, s.runBootstrap, api)
	g.start(PartApprover, s.runApprover, bootstrapped) // its role is one of the manifests
	g.start(PartDisk, func(ctx context.Context, up func()) error { return s.guardDisk(ctx, up, bootstrapped) }, api)
	return g.wait()
}

// prepare creates or checks the files that the components start with. It starts nothing.
func prepare(cfg Config) (*server, error) {
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
	o, err := ParseAPIServer(apiServerFlags(cfg, creds, encryption))
	if err != nil {
		return nil, err
	}
	s := &server{cfg: cfg, clusterID: cluster.ID, creds: creds, store: store, guard: newGuard(cfg), apiServer: o}
	return s, setUpstreamGlobals()
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
