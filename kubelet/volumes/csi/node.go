package csi

import (
	"context"
	"fmt"
	"sync"
	"time"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	migration "k8s.io/csi-translation-lib/plugins"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/csi/nodeinfomanager"
	"k8s.io/utils/ptr"
)

// nodeKey is the item of reports that stands for the CSINode itself. No driver has this name.
const nodeKey = ""

// volumeHost has the method of upstream's VolumeHost that the node info manager uses.
type volumeHost struct {
	volume.VolumeHost
	client kubernetes.Interface
}

func (h volumeHost) GetKubeClient() kubernetes.Interface { return h.client }

// newNodeInfo makes the writer of CSINode. The annotation storage.alpha.kubernetes.io/migrated-plugins
// tells the scheduler which kinds of volumes count as those of CSI drivers: upstream's list.
func newNodeInfo(cfg Config) nodeinfomanager.Interface {
	migrated := map[string]func() bool{}
	for _, name := range []string{
		migration.AWSEBSInTreePluginName, migration.AzureDiskInTreePluginName, migration.AzureFileInTreePluginName,
		migration.CinderInTreePluginName, migration.GCEPDInTreePluginName, migration.PortworxVolumePluginName,
		migration.VSphereInTreePluginName,
	} {
		migrated[name] = func() bool { return true }
	}
	return nodeinfomanager.NewNodeInfoManager(types.NodeName(cfg.NodeName), volumeHost{client: cfg.Client}, migrated)
}

func newReports() workqueue.TypedRateLimitingInterface[string] {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 5*time.Second)
	return workqueue.NewTypedRateLimitingQueue(limiter)
}

// Run watches the CSIDrivers of the cluster and keeps this node's CSINode right until ctx ends.
// Registered drivers stay in it then: they run on.
func (p *Plugin) Run(ctx context.Context) error {
	_, err := p.infos.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    p.infoChanged,
		UpdateFunc: func(_, info any) { p.infoChanged(info) },
	})
	if err != nil {
		return fmt.Errorf("watching CSIDrivers: %w", err)
	}
	var workers sync.WaitGroup
	workers.Go(func() { p.infos.RunWithContext(ctx) })
	workers.Go(func() { p.work(ctx) })
	p.reports.Add(nodeKey)
	<-ctx.Done()
	p.reports.ShutDown()
	workers.Wait()
	return nil
}

// infoChanged looks whether the limit of the driver's volumes may change.
func (p *Plugin) infoChanged(object any) {
	info, ok := object.(*storagev1.CSIDriver)
	if ok && updatePeriod(info) > 0 {
		p.reports.Add(info.Name)
	}
}

func (p *Plugin) work(ctx context.Context) {
	for name, shutdown := p.reports.Get(); !shutdown; name, shutdown = p.reports.Get() {
		if err := p.sync(ctx, name); err == nil {
			p.reports.Forget(name)
		} else if ctx.Err() == nil {
			klog.FromContext(ctx).V(2).Info("Cannot update the CSINode, trying again", "driver", name, "err", err)
			p.reports.AddRateLimited(name)
		}
		p.reports.Done(name)
	}
}

// sync tells the cluster of a driver as it is now.
func (p *Plugin) sync(ctx context.Context, name string) error {
	if name == nodeKey {
		err := p.nodes.InitializeCSINodeWithAnnotation()
		if err == nil {
			p.initialize()
		}
		return err
	}
	if p.registered(name) == nil {
		p.reporting.Lock()
		defer p.reporting.Unlock()
		if p.registered(name) != nil {
			return nil // again
		}
		return p.nodes.UninstallCSIDriver(name)
	}
	info, err := p.info(ctx, name)
	if err != nil {
		return err
	}
	if period := updatePeriod(info); period > 0 {
		p.reports.AddAfter(name, period)
		return p.refresh(ctx, name)
	}
	return nil
}

// refresh asks a registered driver again what it says of this node.
func (p *Plugin) refresh(ctx context.Context, name string) error {
	d := p.registered(name)
	if d == nil {
		return nil
	}
	node, err := d.NodeGetInfo(ctx, &csipb.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	p.reporting.Lock()
	defer p.reporting.Unlock()
	if p.registered(name) != d {
		return nil
	}
	return p.report(name, node)
}

// report writes what the driver says of this node, which has a CSINode afterwards. It is called with
// reporting held.
func (p *Plugin) report(name string, node *csipb.NodeGetInfoResponse) error {
	// The Node may have been made anew, and then its CSINode has to be.
	if err := p.nodes.InitializeCSINodeWithAnnotation(); err != nil {
		return err
	}
	return p.nodes.InstallCSIDriver(
		name, node.GetNodeId(), node.GetMaxVolumesPerNode(), node.GetAccessibleTopology().GetSegments())
}

// updatePeriod is after which time to ask the driver again how many volumes the node can have, zero
// for never.
func updatePeriod(info *storagev1.CSIDriver) time.Duration {
	if info == nil {
		return 0
	}
	return time.Duration(ptr.Deref(info.Spec.NodeAllocatableUpdatePeriodSeconds, 0)) * time.Second
}

// info returns the driver's CSIDriver, nil if it has none.
func (p *Plugin) info(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	if !cache.WaitFor(ctx, "", p.infos.HasSyncedChecker()) {
		return nil, fmt.Errorf("waiting for the CSIDrivers of the cluster: %w", context.Cause(ctx))
	}
	object, exists, err := p.infos.GetStore().GetByKey(name)
	if err != nil || !exists {
		return nil, err
	}
	return object.(*storagev1.CSIDriver), nil
}
