package simulated

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/pod"
	"flyball.dev/kubelet/volumes"
)

const (
	// maxPods is how many Pods a node takes, unless Config.Capacity says otherwise.
	maxPods = 110
	// startAtOnce is how many nodes register at the same time: the API server
	// would turn a thousand away.
	startAtOnce = 16
	// recorders is how many queues of Events there are at most. One for each node
	// would be a hundred megabytes for a thousand nodes; one for all would be full.
	// Of many nodes it may be full: they start thousands of Pods at once, Events are
	// most of what they write then, and what a Pod waits for is not to wait for them.
	recorders, fewRecorders = 8, 2
	// fewNodes renew their Leases as any node does, each ten seconds. More of them
	// do it half as often: a thousand would be a hundred writes in each second. The
	// node lifecycle controller gives a node up after 50 s.
	fewNodes   = 100
	slowLeases = 80 * time.Second
)

// Where addresses come from that nothing answers at, and that no network has: the
// range for benchmarks of RFC 2544.
var (
	podRange  = netip.MustParsePrefix("198.18.0.0/16")
	nodeRange = netip.MustParsePrefix("198.19.0.0/16")
)

// Config says which nodes there are to be. Client and Nodes are required.
type Config struct {
	// Client is how to reach the API server. It must be allowed to impersonate
	// nodes, and to read Pods, Nodes, Services, ConfigMaps and Secrets: an
	// administrator's. Its rate limits are not used.
	Client *rest.Config
	// Nodes is how many; 0 to 10000.
	Nodes int
	// Prefix of their names, "simulated-" by default: the nodes are simulated-0,
	// simulated-1 and so on.
	Prefix string
	// Capacity of each node. What is not in it is 8 CPUs, 32 GiB of memory, 100 GiB
	// of ephemeral storage and 110 Pods.
	Capacity v1.ResourceList
	// Labels that each Node has besides the well-known ones.
	Labels map[string]string
	// Architecture that the nodes report, in Go's words; that of this program by default.
	Architecture string
	// ClusterDNS and ClusterDomain are what Pods would resolve names with;
	// cluster.local by default.
	ClusterDNS    []netip.Addr
	ClusterDomain string
	// Report is told of failures that are not of a Pod and that are tried again. May be nil.
	Report func(error)
	// Ready is called once, when the API server knows Awaited of the Nodes as Ready. May be nil.
	Ready func()
	// Awaited is how many Nodes Ready waits for; 0 means all.
	Awaited int
}

func (c Config) complete() (Config, error) {
	if c.Prefix == "" {
		c.Prefix = "simulated-"
	}
	if c.Architecture == "" {
		c.Architecture = goruntime.GOARCH
	}
	if c.ClusterDomain == "" {
		c.ClusterDomain = "cluster.local"
	}
	if c.Awaited == 0 || c.Awaited > c.Nodes {
		c.Awaited = c.Nodes
	}
	var errs []error
	if c.Client == nil {
		errs = append(errs, errors.New("there is no client of the API server"))
	}
	if c.Nodes < 0 || c.Nodes > 10000 {
		errs = append(errs, fmt.Errorf("%d nodes are out of range: from 0 to 10000", c.Nodes))
	}
	// The label kubernetes.io/hostname of a Node is its name.
	last := c.Prefix + strconv.Itoa(max(c.Nodes-1, 0))
	for _, text := range append(validation.IsDNS1123Subdomain(last), validation.IsValidLabelValue(last)...) {
		errs = append(errs, fmt.Errorf("the prefix %q does not begin the name of a node, %s: %s", c.Prefix, last, text))
	}
	if err := errors.Join(errs...); err != nil {
		return c, fmt.Errorf("checking the configuration of simulated nodes: %w", err)
	}
	return c, nil
}

// Run runs the nodes until ctx ends. Their Nodes and Pods stay in the API server as
// they are then. It returns before that only if they cannot run.
func Run(ctx context.Context, cfg Config) (err error) {
	if cfg, err = cfg.complete(); err != nil {
		return err
	}
	s, err := newShared(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.logs.removeAll()) }()
	if err = s.run(ctx); ctx.Err() != nil {
		return nil // what it says of being stopped is of no interest
	}
	return err
}

// shared is what all nodes have in common.
type shared struct {
	cfg    Config
	rest   *rest.Config
	client kubernetes.Interface

	pods, nodes, services cache.SharedIndexInformer
	volumes               *volumes.Manager
	events                []record.EventBroadcaster
	addresses             *addresses
	logs                  *logFiles
	streams               *streams
	port                  int

	all    []*simulatedNode
	byName map[string]*simulatedNode
	// owners are the nodes by the UIDs of their Pods.
	owners sync.Map
}

func newShared(cfg Config) (*shared, error) {
	s := &shared{cfg: cfg, addresses: newAddresses(podRange), byName: map[string]*simulatedNode{}}
	s.rest = rest.CopyConfig(cfg.Client)
	s.rest.QPS = -1 // what nodes write is bounded by what happens on them
	s.rest.UserAgent = "flyball-simulated-kubelet"
	s.rest.ContentType = "application/vnd.kubernetes.protobuf"
	s.rest.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	var err error
	if s.client, err = kubernetes.NewForConfig(s.rest); err != nil {
		return nil, fmt.Errorf("making the API client of simulated nodes: %w", err)
	}
	s.logs = &logFiles{dir: filepath.Join(os.TempDir(), "flyball-simulated-"+newID()[:16]), written: map[string]string{}}
	// Pods that are bound to no node are no node's business.
	bound := informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
	})
	slim := informers.WithTransform(withoutManagedFields)
	s.pods = informers.NewSharedInformerFactoryWithOptions(s.client, 0, bound, slim).Core().V1().Pods().Informer()
	others := informers.NewSharedInformerFactoryWithOptions(s.client, 0, slim).Core().V1()
	s.nodes, s.services = others.Nodes().Informer(), others.Services().Informer()
	s.volumes = volumes.New(volumes.Config{
		NoFiles: true, RootDir: s.logs.dir, Client: s.client, Allocatable: s.allocatable,
		Changed: func(uid types.UID) {
			if n, ok := s.owners.Load(uid); ok {
				n.(*simulatedNode).Pods.Retry(uid) //nolint:forcetypeassert // nothing else is in there
			}
		},
		Event: func(p *v1.Pod, kind, reason, message string) {
			s.recorder(0, p.Spec.NodeName).Event(p, kind, reason, message)
		},
	})
	return s, nil
}

// withoutManagedFields drops what the agent never reads, and what is often half of
// an object.
func withoutManagedFields(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// run starts everything in order, and returns when all has ended.
func (s *shared) run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	defer s.stopEvents()
	s.startEvents(ctx)
	if err := s.serve(ctx, all); err != nil {
		return err
	}
	if err := s.authorize(ctx); err != nil {
		return err
	}
	for i := range s.cfg.Nodes {
		n, err := s.newNode(i)
		if err != nil {
			return err
		}
		s.all = append(s.all, n)
		s.byName[n.name] = n
	}
	told, err := s.dispatch()
	if err != nil {
		return err
	}
	for _, informer := range []cache.SharedIndexInformer{s.pods, s.nodes, s.services} {
		all.Go(func() error { informer.RunWithContext(ctx); return nil })
	}
	all.Go(func() error { return s.volumes.Run(ctx) })
	if synced(ctx, told) {
		s.start(ctx, all)
	}
	return all.Wait()
}

// synced waits until all is known, and says whether that came before the end. The
// library's own wait looks ten times a second only, and a test suite waits for us.
func synced(ctx context.Context, told []cache.InformerSynced) bool {
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	for _, done := range told {
		for !done() {
			select {
			case <-ctx.Done():
				return false
			case <-look.C:
			}
		}
	}
	return true
}

// start starts the nodes, some at a time, and says when as many are ready as are awaited.
func (s *shared) start(ctx context.Context, all *errgroup.Group) {
	if s.cfg.Awaited == 0 {
		s.ready() // there are no nodes
	}
	turns := make(chan struct{}, startAtOnce)
	var started atomic.Int64
	for _, n := range s.all {
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return
		}
		all.Go(func() error { return n.run(ctx) })
		all.Go(func() error {
			select {
			case <-n.ready:
				if started.Add(1) == int64(s.cfg.Awaited) {
					s.ready()
				}
			case <-ctx.Done():
			}
			<-turns
			return nil
		})
	}
}

func (s *shared) ready() {
	if s.cfg.Ready != nil {
		s.cfg.Ready()
	}
}

// dispatch has the watches tell each node of what is its.
func (s *shared) dispatch() (told []cache.InformerSynced, err error) {
	pods, podsErr := s.pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) { s.podChanged(obj) }, UpdateFunc: func(_, obj any) { s.podChanged(obj) },
		DeleteFunc: s.podGone,
	})
	nodes, nodesErr := s.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: s.nodeChanged, UpdateFunc: func(_, obj any) { s.nodeChanged(obj) }, DeleteFunc: s.nodeChanged,
	})
	if err := errors.Join(podsErr, nodesErr); err != nil {
		return nil, fmt.Errorf("watching Pods and Nodes: %w", err)
	}
	return []cache.InformerSynced{pods.HasSynced, nodes.HasSynced, s.services.HasSynced}, nil
}

func (s *shared) podChanged(obj any) {
	p, ok := obj.(*v1.Pod)
	if !ok {
		return
	}
	n := s.byName[p.Spec.NodeName]
	if n == nil {
		return
	}
	before, had := n.podSrc.Pod(p.Namespace, p.Name)
	if had && before.UID != p.UID {
		s.owners.Delete(before.UID)
	}
	s.owners.Store(p.UID, n)
	n.images.importNeverPulled(p)
	n.podSrc.set(p)
	if had && ((p.DeletionTimestamp == nil) != (before.DeletionTimestamp == nil) || !maps.Equal(p.Annotations, before.Annotations)) {
		n.runtime.podChanged(p)
	}
}

func (s *shared) podGone(obj any) {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	p, ok := obj.(*v1.Pod)
	if !ok {
		return
	}
	s.owners.Delete(p.UID)
	if n := s.byName[p.Spec.NodeName]; n != nil {
		n.podSrc.drop(p)
	}
}

func (s *shared) nodeChanged(obj any) {
	name, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj)
	if n := s.byName[name]; err == nil && n != nil {
		n.nodeSrc.look()
	}
}

func (s *shared) startEvents(ctx context.Context) {
	queues := max(1, min(recorders, s.cfg.Nodes))
	if s.cfg.Nodes > fewNodes {
		queues = fewRecorders
	}
	for range queues {
		b := record.NewBroadcaster(record.WithContext(ctx))
		b.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: s.client.CoreV1().Events("")})
		s.events = append(s.events, b)
	}
}

func (s *shared) stopEvents() {
	for _, b := range s.events {
		b.Shutdown()
	}
}

// recorder is where a node tells of Events.
func (s *shared) recorder(i int, nodeName string) record.EventRecorder {
	return s.events[i%len(s.events)].NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: nodeName})
}

func (s *shared) leaseDuration() time.Duration {
	if s.cfg.Nodes <= fewNodes {
		return 0 // as any node
	}
	return slowLeases
}

func (s *shared) capacity() v1.ResourceList {
	c := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("8"), v1.ResourceMemory: resource.MustParse("32Gi"),
		v1.ResourceEphemeralStorage: resource.MustParse("100Gi"), v1.ResourcePods: *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
	maps.Copy(c, s.cfg.Capacity)
	return c
}

// allocatable of each node replaces missing limits in the downward API.
func (s *shared) allocatable() v1.ResourceList { return node.Allocatable(s.capacity()) }

func (s *shared) nodeIP(i int) netip.Addr {
	base := nodeRange.Addr().As4()
	i++
	base[2], base[3] = base[2]+byte(i>>8), byte(i)
	return netip.AddrFrom4(base)
}

// nodeAddresses name this host: the API server finds the server of
// all nodes there.
func (s *shared) nodeAddresses(n *simulatedNode) []v1.NodeAddress {
	return []v1.NodeAddress{
		{Type: v1.NodeInternalIP, Address: n.ip.String()},
		{Type: v1.NodeHostName, Address: serverHost},
	}
}

// servicesOf lists the Services of a namespace.
func (s *shared) servicesOf(_ context.Context, namespace string) ([]*v1.Service, error) {
	var list []*v1.Service
	err := cache.ListAllByNamespace(s.services.GetIndexer(), namespace, labels.Everything(), func(o any) {
		list = append(list, o.(*v1.Service)) //nolint:forcetypeassert // an informer of Services
	})
	return list, err
}

var _ pod.Source = (*podSource)(nil)
