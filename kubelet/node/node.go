package node

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"google.golang.org/grpc"
	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/apimachinery/lease"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

const (
	leaseDurationSeconds = 40
	leaseRenewInterval   = 10 * time.Second
)

// Runtime is the part of CRI's RuntimeService that the Node's status reports;
// runtimeapi.RuntimeServiceClient has it.
type Runtime interface {
	Version(ctx context.Context, in *runtimeapi.VersionRequest, opts ...grpc.CallOption) (*runtimeapi.VersionResponse, error)
	Status(ctx context.Context, in *runtimeapi.StatusRequest, opts ...grpc.CallOption) (*runtimeapi.StatusResponse, error)
}

// Images is the part of CRI's ImageService that the Node's status reports;
// runtimeapi.ImageServiceClient has it.
type Images interface {
	ListImages(ctx context.Context, in *runtimeapi.ListImagesRequest, opts ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error)
}

// Config is what a Node is made of. All fields but Labels, VolumesInUse, Recorder,
// Report and Ready are required.
type Config struct {
	Name    string
	IP      netip.Addr
	Client  kubernetes.Interface
	Runtime Runtime
	Images  Images
	// Port is where the kubelet's server listens.
	Port int
	// MaxPods is the capacity for pods.
	MaxPods int
	// RootDir lies on the file system whose size is the capacity for ephemeral storage.
	RootDir string
	// Labels are set on the Node besides the well-known ones, and kept.
	Labels map[string]string
	// VolumesInUse lists attached volumes that pods of this node use. May be nil.
	VolumesInUse func() []v1.UniqueVolumeName
	// Recorder publishes Events about the Node. May be nil.
	Recorder record.EventRecorder
	// Report is called each time that the Node cannot be registered or its status not
	// be written; both are tried again. May be nil.
	Report func(error)
	// Ready is called once, when the API server has accepted that the Node is Ready. May be nil.
	Ready func()
}

// Node runs the three loops. Make it with New.
type Node struct {
	cfg     Config
	machine machine
	poke    chan struct{} // capacity 1: look again at once
	cached  cache.Store   // holds the Node object of this machine, as last watched
	watch   cache.Controller
	ready   sync.Once
}

// New reads what never changes about the machine (identity, kernel, number of
// CPUs, memory). It does not talk to the API server or the runtime yet.
func New(cfg Config) (*Node, error) {
	m, err := readMachine(cfg.RootDir)
	if err != nil {
		return nil, fmt.Errorf("reading what this machine is: %w", err)
	}
	n := &Node{cfg: cfg, machine: m, poke: make(chan struct{}, 1)}
	n.cached, n.watch = n.newInformer()
	return n, nil
}

// Run registers the Node, then renews its Lease and reports its status until ctx
// ends. The Node is not deleted then: a restart of the agent is not the end of
// the machine.
func (n *Node) Run(ctx context.Context) error {
	r := &reporter{Node: n, pressed: map[v1.NodeConditionType]time.Time{}}
	if err := r.register(ctx); err != nil {
		return err
	}
	var loops sync.WaitGroup
	defer loops.Wait()
	loops.Go(func() { n.renewLease(ctx) })
	loops.Go(func() { n.watch.Run(ctx.Done()) })
	r.reportStatus(ctx)
	return nil
}

// Recheck has the status looked at now, and reported if it changed. Others
// call it when they know more than the loop: after an image was pulled, or when
// the runtime comes or goes. It never blocks.
func (n *Node) Recheck() {
	select {
	case n.poke <- struct{}{}:
	default:
	}
}

// Object returns the Node as last seen in the API, nil before that. It must not
// be changed.
func (n *Node) Object() *v1.Node {
	obj, ok, err := n.cached.GetByKey(n.cfg.Name)
	if err != nil || !ok {
		return nil
	}
	return obj.(*v1.Node)
}

// Capacity and Allocatable of this machine; what cgroups and admission are
// planned with. They never change while the agent runs.
func (n *Node) Capacity() v1.ResourceList { return capacity(n.machine, n.cfg.MaxPods) }

// Allocatable is Capacity less what is kept free for the machine itself.
func (n *Node) Allocatable() v1.ResourceList { return allocatable(n.Capacity()) }

// newInformer watches the one Node object of this machine, so that what others
// do to it (assign a podCIDR, mark it Unknown after a silence, delete it) is
// answered at once.
func (n *Node) newInformer() (cache.Store, cache.Controller) {
	nodes := n.cfg.Client.CoreV1().Nodes()
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, n.cfg.Name).String()
	look := func() { n.Recheck() }
	return cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = only
				return nodes.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = only
				return nodes.Watch(ctx, o)
			},
		}, n.cfg.Client),
		ObjectType: &v1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { look() },
			UpdateFunc: func(any, any) { look() },
			DeleteFunc: func(any) { look() },
		},
	})
}

// renewLease keeps the Lease that the node lifecycle controller takes for the
// sign of life of this machine. The library does not write one that is current.
func (n *Node) renewLease(ctx context.Context) {
	lease.NewController(clock.RealClock{}, n.cfg.Client, n.cfg.Name, leaseDurationSeconds, nil,
		leaseRenewInterval, n.cfg.Name, v1.NamespaceNodeLease, func(l *coordinationv1.Lease) error {
			return n.ownLease(ctx, l)
		}).Run(ctx)
}

// ownLease makes the Lease go away together with the Node.
func (n *Node) ownLease(ctx context.Context, l *coordinationv1.Lease) error {
	if len(l.OwnerReferences) > 0 {
		return nil
	}
	node, err := n.cfg.Client.CoreV1().Nodes().Get(ctx, n.cfg.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("reading the Node that owns the lease: %w", err)
	}
	l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}}
	return nil
}

// event publishes an Event about the Node.
func (n *Node) event(reason, message string) {
	if n.cfg.Recorder == nil {
		return
	}
	n.cfg.Recorder.Event(Reference(n.cfg.Name), v1.EventTypeNormal, reason, message)
}

// Reference is what Events about a Node refer to. Its UID is the Node's name, as
// upstream's kubelet has it: the Event may be older than the object.
func Reference(name string) *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", Name: name, UID: types.UID(name)}
}
