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
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/apimachinery/lease"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"
)

const (
	// DefaultLeaseDuration is how long the Lease is good for.
	DefaultLeaseDuration = 40 * time.Second
	leaseRenewals        = 4 // within the Lease's duration
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

// Config is what a Node is made of. All fields but those that say what happens without them are
// required.
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
	// Machine stands in for the machine that the agent runs on. May be nil.
	Machine *Machine
	// Source is where the Node object is learnt of; a watch of it if nil.
	Source Source
	// LeaseDuration is what the Lease promises; it is renewed four times as often. 0
	// means 40 s.
	LeaseDuration time.Duration
	// VolumesInUse lists attached volumes that pods of this node use. May be nil.
	VolumesInUse func() []v1.UniqueVolumeName
	// Changed is called after the Node object has changed, and must not block. May be nil.
	Changed func()
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
	source  Source
	ready   sync.Once
}

// New reads what never changes about the machine (identity, kernel, number of
// CPUs, memory). It does not talk to the API server or the runtime yet.
func New(cfg Config) (*Node, error) {
	if cfg.LeaseDuration == 0 {
		cfg.LeaseDuration = DefaultLeaseDuration
	}
	n := &Node{cfg: cfg, source: cfg.Source, poke: make(chan struct{}, 1)}
	if cfg.Machine != nil {
		n.machine = cfg.Machine.machine()
	} else {
		var err error
		if n.machine, err = readMachine(cfg.RootDir); err != nil {
			return nil, fmt.Errorf("reading what this machine is: %w", err)
		}
	}
	if n.source == nil {
		n.source = newWatched(cfg.Client, cfg.Name)
	}
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
	loops.Go(func() { n.source.Run(ctx, n.changed) })
	r.reportStatus(ctx)
	return nil
}

// changed is called when the Node object has changed.
func (n *Node) changed() {
	n.Recheck()
	if n.cfg.Changed != nil {
		n.cfg.Changed()
	}
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
	return n.source.Node()
}

// Capacity and Allocatable of this machine; what cgroups and admission are
// planned with. They never change while the agent runs.
func (n *Node) Capacity() v1.ResourceList { return capacity(n.machine, n.cfg.MaxPods) }

// Reserved is what of Capacity stays with the machine itself.
func (n *Node) Reserved() v1.ResourceList { return reserved(n.Capacity()) }

// Allocatable is Capacity less what is reserved, and less huge pages.
func (n *Node) Allocatable() v1.ResourceList { return allocatable(n.Capacity()) }

// renewLease keeps the Lease that the node lifecycle controller takes for the
// sign of life of this machine. The library does not write one that is current.
func (n *Node) renewLease(ctx context.Context) {
	lease.NewController(clock.RealClock{}, n.cfg.Client, n.cfg.Name, int32(n.cfg.LeaseDuration/time.Second), nil,
		n.cfg.LeaseDuration/leaseRenewals, n.cfg.Name, v1.NamespaceNodeLease, func(l *coordinationv1.Lease) error {
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
