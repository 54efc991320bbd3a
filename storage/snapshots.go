package storage

import (
	"context"
	"fmt"
	"time"

	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	clientset "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	snapshotscheme "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned/scheme"
	snapinformers "github.com/kubernetes-csi/external-snapshotter/client/v8/informers/externalversions"
	common "github.com/kubernetes-csi/external-snapshotter/v8/pkg/common-controller"
	"github.com/kubernetes-csi/external-snapshotter/v8/pkg/metrics"
	sidecar "github.com/kubernetes-csi/external-snapshotter/v8/pkg/sidecar-controller"
	"github.com/kubernetes-csi/external-snapshotter/v8/pkg/snapshotter"
	"github.com/kubernetes-csi/external-snapshotter/v8/pkg/utils"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"flyball.dev/storage/driver"
)

// The snapshotter's Events are about kinds that client-go's scheme must know. It may be changed
// before anything reads it only.
func init() { utilruntime.Must(snapshotscheme.AddToScheme(scheme.Scheme)) }

const (
	// snapshotTimeout is how long one call of the driver may take: a copy of a large volume takes
	// long where the file system has no reflinks.
	snapshotTimeout = time.Hour
	snapshotWorkers = 4
	// contentResync is how often the contents of this node are reconciled without an event: the
	// library misses a deletion that begins while the snapshot is taken. There are few of them, and
	// none is read from the API server for it.
	contentResync = 30 * time.Second
	// servedInterval is how often the API server is asked for kinds that it does not serve.
	servedInterval = 10 * time.Second
)

// SnapshotConfig is what RunSnapshotController needs.
type SnapshotConfig struct {
	// Client reaches the API server.
	Client *rest.Config
	// Ready is called once, when the controller runs.
	Ready func()
}

// RunSnapshotController binds VolumeSnapshots to VolumeSnapshotContents, for the drivers of all
// nodes, until ctx ends. It is external-snapshotter's snapshot-controller; a cluster has one.
func RunSnapshotController(ctx context.Context, cfg SnapshotConfig) error {
	c, err := snapshotClients(ctx, cfg.Client, resync)
	if err != nil || ctx.Err() != nil {
		return err
	}
	kinds, groups, core := c.snapshots.Snapshot().V1(), c.snapshots.Groupsnapshot().V1(), c.core.Core().V1()
	controller := common.NewCSISnapshotCommonController(c.snapshotClient, c.client,
		kinds.VolumeSnapshots(), kinds.VolumeSnapshotContents(), kinds.VolumeSnapshotClasses(),
		groups.VolumeGroupSnapshots(), groups.VolumeGroupSnapshotContents(), groups.VolumeGroupSnapshotClasses(),
		core.PersistentVolumeClaims(), core.PersistentVolumes(), core.Nodes(),
		metrics.NewMetricsManager(), resync, retries(), retries(), retries(), retries(),
		true,  // contents get the label of the node that has the volume
		true,  // a file system does not become a block device without an annotation
		false, // no groups
	)
	stop := c.start(ctx)
	defer stop()
	cfg.Ready()
	controller.Run(snapshotWorkers, ctx.Done(), nil)
	return nil
}

// runSnapshotter takes and deletes the snapshots of one node through the driver's socket, until ctx
// ends. It is external-snapshotter's sidecar.
func runSnapshotter(ctx context.Context, rc *rest.Config, node string, conn *grpc.ClientConn) error {
	c, err := snapshotClients(ctx, rc, contentResync, snapinformers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.LabelSelector = labels.Set{utils.VolumeSnapshotContentManagedByLabel: node}.String()
	}))
	if err != nil || ctx.Err() != nil {
		return err
	}
	// Classes have no label of a node.
	classes := snapinformers.NewSharedInformerFactory(c.snapshotClient, resync)
	groups := c.snapshots.Groupsnapshot().V1()
	controller := sidecar.NewCSISnapshotSideCarController(c.snapshotClient, c.client, driver.Name,
		c.snapshots.Snapshot().V1().VolumeSnapshotContents(), classes.Snapshot().V1().VolumeSnapshotClasses(),
		snapshotter.NewSnapshotter(conn), nil, snapshotTimeout, contentResync,
		"snapshot", -1, "groupsnapshot", -1, false, retries(),
		false, groups.VolumeGroupSnapshotContents(), groups.VolumeGroupSnapshotClasses(), retries(),
	)
	stop := c.start(ctx)
	defer stop()
	classes.Start(ctx.Done())
	defer classes.Shutdown()
	controller.Run(snapshotWorkers, ctx.Done(), nil)
	return nil
}

func retries() workqueue.TypedRateLimiter[string] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryMin, retryMax)
}

// clients are what both halves of the snapshotter need.
type clients struct {
	client         kubernetes.Interface
	snapshotClient clientset.Interface
	core           informers.SharedInformerFactory
	snapshots      snapinformers.SharedInformerFactory
}

// snapshotClients returns clients and informers once the API server serves VolumeSnapshots: the
// CRDs may be installed later, and by somebody else.
func snapshotClients(ctx context.Context, rc *rest.Config, every time.Duration, options ...snapinformers.SharedInformerOption) (c clients, err error) {
	rc = rest.CopyConfig(rc)
	rc.QPS = -1 // the API server's priority and fairness is the limit
	if c.client, err = kubernetes.NewForConfig(rc); err != nil {
		return c, fmt.Errorf("setting up snapshots: %w", err)
	}
	if c.snapshotClient, err = clientset.NewForConfig(rc); err != nil {
		return c, fmt.Errorf("setting up snapshots: %w", err)
	}
	_ = wait.PollUntilContextCancel(ctx, servedInterval, true, func(context.Context) (bool, error) {
		served, err := c.client.Discovery().ServerResourcesForGroupVersion(snapshotv1.SchemeGroupVersion.String())
		return err == nil && len(served.APIResources) > 0, nil
	})
	c.core = informers.NewSharedInformerFactoryWithOptions(c.client, resync, informers.WithTransform(cache.TransformStripManagedFields()))
	options = append(options, snapinformers.WithTransform(cache.TransformStripManagedFields()))
	c.snapshots = snapinformers.NewSharedInformerFactoryWithOptions(c.snapshotClient, every, options...)
	return c, nil
}

// start starts the informers. It returns what waits for their end.
func (c clients) start(ctx context.Context) (stop func()) {
	c.core.Start(ctx.Done())
	c.snapshots.Start(ctx.Done())
	return func() {
		c.core.Shutdown()
		c.snapshots.Shutdown()
	}
}
