package csi

import (
	"context"
	"fmt"
	"slices"
	"sync"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/version"
	storageinformers "k8s.io/client-go/informers/storage/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/kubernetes/pkg/volume/csi/nodeinfomanager"

	"flyball.dev/kubelet/plugins"
	"flyball.dev/kubelet/volumes"
)

// Name of the plugin is upstream's.
const Name = "kubernetes.io/csi"

// Config of a Plugin. All fields are required.
type Config struct {
	// Client with the identity of the node.
	Client kubernetes.Interface
	// NodeName of this node.
	NodeName string
	// Changed is called with Pods that waited for a driver which has registered now. It must not
	// block.
	Changed func(types.UID)
	// Event records an Event about a Pod or a claim.
	Event func(object runtime.Object, eventtype, reason, message string)
}

// Plugin has the drivers of this node, and their volumes.
type Plugin struct {
	cfg     Config
	seconds *prometheus.HistogramVec
	// infos are the CSIDrivers of the cluster.
	infos cache.SharedIndexInformer
	nodes nodeinfomanager.Interface
	// reporting is held while the cluster is told of a driver.
	reporting sync.Mutex
	// reports has the names of drivers of which the cluster has to be told.
	reports workqueue.TypedRateLimitingInterface[string]
	// initialized is closed when this node has a CSINode. Drivers wait for that.
	initialized chan struct{}
	initialize  func()

	mu      sync.Mutex
	drivers map[string]*driver
	// known is what drivers can do, also those that have left: nobody can say while one is restarted.
	known map[string]capabilities
	// waiting are the Pods that need a driver, by its name.
	waiting map[string]sets.Set[types.UID]
	// uses are the volumes that this process has published, by target.
	uses map[string]*use
}

var (
	_ volumes.StatsPlugin = &Plugin{}
	_ plugins.Handler     = &Plugin{}
)

// driver is one that has registered.
type driver struct {
	name string
	conn *grpc.ClientConn
	csipb.NodeClient
	capabilities capabilities
}

// capabilities of the Node service.
type capabilities = sets.Set[csipb.NodeServiceCapability_RPC_Type]

// New returns a Plugin without drivers. It reads nothing until Run.
func New(cfg Config) *Plugin {
	p := &Plugin{
		cfg: cfg, seconds: newSeconds(),
		infos:   storageinformers.NewCSIDriverInformer(cfg.Client, 0, cache.Indexers{}),
		nodes:   newNodeInfo(cfg),
		reports: newReports(), initialized: make(chan struct{}),
		drivers: map[string]*driver{}, known: map[string]capabilities{}, waiting: map[string]sets.Set[types.UID]{},
		uses: map[string]*use{},
	}
	p.initialize = sync.OnceFunc(func() { close(p.initialized) })
	return p
}

// Collectors returns the metrics of the Plugin, for a registry.
func (p *Plugin) Collectors() []prometheus.Collector { return []prometheus.Collector{p.seconds} }

// Validate implements plugins.Handler: it takes drivers of CSI 1.
func (*Plugin) Validate(plugin plugins.Plugin) error {
	if slices.ContainsFunc(plugin.Versions, func(s string) bool {
		v, err := version.ParseGeneric(s)
		return err == nil && v.Major() == 1
	}) {
		return nil
	}
	return fmt.Errorf("CSI driver %s supports the versions %q, but the kubelet needs version 1.x", plugin.Name, plugin.Versions)
}

// Register implements plugins.Handler. The driver is used when the cluster knows of it.
func (p *Plugin) Register(ctx context.Context, plugin plugins.Plugin) (err error) {
	conn, err := dial(plugin.Name, plugin.Endpoint, p.seconds)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = conn.Close()
		}
	}()
	d := &driver{name: plugin.Name, conn: conn, NodeClient: csipb.NewNodeClient(conn)}
	if d.capabilities, err = capabilitiesOf(ctx, d); err != nil {
		return err
	}
	node, err := d.NodeGetInfo(ctx, &csipb.NodeGetInfoRequest{})
	if err != nil {
		return err
	}
	select {
	case <-p.initialized:
	case <-ctx.Done(): // registrars exit when they are refused, so this comes late
		return fmt.Errorf("waiting for the CSINode of this node: %w", context.Cause(ctx))
	}
	old, waiting, err := p.add(d, node)
	if err != nil {
		return err
	}
	if old != nil {
		_ = old.conn.Close()
	}
	for uid := range waiting {
		p.cfg.Changed(uid)
	}
	p.reports.Add(d.name) // and again, if the limit of volumes may change
	return nil
}

// add has the cluster know of a driver, and then the Plugin. It returns what the driver replaces, and
// the Pods that have waited for it.
func (p *Plugin) add(
	d *driver, node *csipb.NodeGetInfoResponse,
) (old *driver, waiting sets.Set[types.UID], err error) {
	p.reporting.Lock()
	defer p.reporting.Unlock()
	if err := p.report(d.name, node); err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old, waiting = p.drivers[d.name], p.waiting[d.name]
	p.drivers[d.name], p.known[d.name] = d, d.capabilities
	delete(p.waiting, d.name)
	return old, waiting, nil
}

// Deregister implements plugins.Handler. Volumes of the driver stay as they are and wait for it.
func (p *Plugin) Deregister(plugin plugins.Plugin) {
	p.mu.Lock()
	d := p.drivers[plugin.Name]
	delete(p.drivers, plugin.Name)
	p.mu.Unlock()
	if d != nil {
		_ = d.conn.Close()
		p.reports.Add(plugin.Name)
	}
}

// registered returns a driver, nil if it is not registered.
func (p *Plugin) registered(name string) *driver {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.drivers[name]
}

// driver returns a registered driver. Without one, the Pod is reconciled when it registers.
func (p *Plugin) driver(name string, pod types.UID) (*driver, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if d := p.drivers[name]; d != nil {
		return d, nil
	}
	return nil, p.wait(name, pod)
}

// capabilities of a driver that is or was registered.
func (p *Plugin) capabilities(name string, pod types.UID) (capabilities, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if known, ok := p.known[name]; ok {
		return known, nil
	}
	return nil, p.wait(name, pod)
}

// wait is called with mu held.
func (p *Plugin) wait(name string, pod types.UID) error {
	if pod != "" {
		if p.waiting[name] == nil {
			p.waiting[name] = sets.New[types.UID]()
		}
		p.waiting[name].Insert(pod)
	}
	// Upstream's words.
	return volumes.WaitingError(fmt.Sprintf("driver name %s not found in the list of registered CSI drivers", name))
}
