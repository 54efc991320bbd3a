package storage

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"flyball.dev/storage/driver"
)

// Config is what Run needs.
type Config struct {
	// NodeName is the name of this host's Node.
	NodeName string
	// Client reaches the API server, as a user who may write this node's volumes.
	Client *rest.Config
	// DataDir is the data directory: volumes lie in DataDir/volumes.
	DataDir string
	// Paths are other directories on this node that StorageClasses may name.
	Paths []string
	// Version is that of this program, which the driver reports.
	Version string
	// KubeletDir is the kubelet's root directory, below which drivers have their sockets.
	KubeletDir string
	// Ready is called once, when the kubelet has registered the driver and the loops run.
	Ready func()
	// Report is called with an error that does not end Run, and with nil when it is over.
	Report func(error)
}

// Folders are all that the driver of a node keeps in its directories.
func Folders(dataDir string, paths []string) (folders []string) {
	for _, base := range append([]string{dataDir}, paths...) {
		folders = append(folders, filepath.Join(base, "volumes"), filepath.Join(base, "snapshots"))
	}
	return folders
}

// Run serves this node's driver until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	socket := filepath.Join(cfg.KubeletDir, "plugins", driver.Name, "csi.sock")
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connecting to the socket of %s: %w", driver.Name, err)
	}
	defer conn.Close()
	d := driver.New(driver.Config{NodeName: cfg.NodeName, Dir: cfg.DataDir, Paths: cfg.Paths, Version: cfg.Version})
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return d.Serve(ctx, socket) })
	if _, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true)); err != nil {
		if err := g.Wait(); err != nil {
			return fmt.Errorf("starting %s: %w", driver.Name, err)
		}
		return nil // ctx has ended
	}
	registered, accept := context.WithCancel(ctx)
	defer accept()
	g.Go(func() error {
		return register(ctx, cfg.KubeletDir, socket, func(err error) {
			cfg.Report(err)
			if err == nil {
				accept()
			}
		})
	})
	g.Go(func() error {
		<-registered.Done() // the Node exists then
		if ctx.Err() != nil {
			return nil //nolint:nilerr // ctx has ended
		}
		return runLoops(ctx, cfg, csi.NewControllerClient(conn))
	})
	g.Go(func() error { return runSnapshotter(ctx, cfg.Client, cfg.NodeName, conn) })
	return g.Wait()
}

// resync is how often everything is reconciled without an event, as a safety net.
const resync = 15 * time.Minute

// The interval of retries of what failed, as the sidecars have it.
const retryMin, retryMax = time.Second, 5 * time.Minute

// runLoops runs the loops of this node, with one cache for all.
func runLoops(ctx context.Context, cfg Config, d csi.ControllerClient) error {
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = snapshotv1.AddToScheme(known)
	restConfig := rest.CopyConfig(cfg.Client)
	restConfig.QPS = -1 // the API server's priority and fairness is the limit
	mgr, err := ctrl.NewManager(restConfig, ctrl.Options{
		Scheme:      known,
		Logger:      klog.FromContext(ctx).V(1),
		BaseContext: func() context.Context { return ctx },
		Metrics:     metricsserver.Options{BindAddress: "0"},
		Controller:  config.Controller{SkipNameValidation: new(true)},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			SyncPeriod:       new(resync),
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Node{}: {Field: fields.OneTermEqualSelector("metadata.name", cfg.NodeName)},
				&storagev1.CSIStorageCapacity{}: {
					Namespaces: map[string]cache.Config{capacityNamespace: {}},
					Label:      labels.SelectorFromSet(capacityLabels(cfg.NodeName)),
				},
			},
		},
		// Snapshots are read when a claim names one.
		Client: client.Options{Cache: &client.CacheOptions{
			DisableFor: []client.Object{&snapshotv1.VolumeSnapshot{}, &snapshotv1.VolumeSnapshotContent{}},
		}},
		GracefulShutdownTimeout: new(10 * time.Second),
	})
	if err != nil {
		return fmt.Errorf("setting up the loops of %s: %w", driver.Name, err)
	}
	events, err := typedcorev1.NewForConfigAndClient(restConfig, mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("setting up the Events of %s: %w", driver.Name, err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: events.Events("")})
	n := node{
		name: cfg.NodeName, client: mgr.GetClient(), driver: d, changed: newChanged(),
		events: broadcaster.NewRecorder(known, corev1.EventSource{Component: driver.Name, Host: cfg.NodeName}),
	}
	loop := func(name string) *builder.Builder {
		return ctrl.NewControllerManagedBy(mgr).Named("storage." + name).WithOptions(controller.Options{
			RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](retryMin, retryMax),
			MaxConcurrentReconciles: workers,
		})
	}
	for name, add := range map[string]func(*builder.Builder) error{
		"claims": (&claims{n}).add, "volumes": (&released{n}).add, "capacities": (&capacities{n}).add,
	} {
		if err := add(loop(name)); err != nil {
			return fmt.Errorf("setting up the loop of %s: %w", name, err)
		}
	}
	go func() {
		if mgr.GetCache().WaitForCacheSync(ctx) {
			cfg.Ready()
		}
	}()
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the loops of %s: %w", driver.Name, err)
	}
	return nil
}

// workers is how many objects of a kind are reconciled at a time: a copy of a large volume must not
// stop the others.
const workers = 8
