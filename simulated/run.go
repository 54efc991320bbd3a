package simulated

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/cri-streaming/pkg/streaming"

	"flyball.dev/kubelet"
	"flyball.dev/kubelet/node"
	"flyball.dev/kubelet/volumes"
)

const (
	// maxPods is how many Pods a node runs.
	maxPods = 110
	// startAtOnce is how many nodes register at the same time: the API server would reject a
	// thousand.
	startAtOnce = 16
	// recorders is the largest number of queues of Events. One per node would take a hundred
	// megabytes for a thousand nodes, and a single one overflows. With many nodes there are
	// fewRecorders, which may overflow: when thousands of Pods start at once, most writes are
	// Events, and Pods must not wait for them.
	recorders, fewRecorders = 8, 2
	// fewNodes renew their Leases every ten seconds, as any node does. More nodes renew them half
	// as often: a thousand would write a hundred times per second. The node lifecycle controller
	// gives a node up after 50 s.
	fewNodes   = 100
	slowLeases = 80 * time.Second
)

// The ranges of addresses, which RFC 2544 reserves for benchmarks. Nothing answers at them.
var (
	podRange  = netip.MustParsePrefix("198.18.0.0/16")
	nodeRange = netip.MustParsePrefix("198.19.0.0/16")
)

// Run runs the nodes until ctx ends, or returns an error if they cannot run. Their Nodes and Pods
// stay in the API server.
func Run(ctx context.Context, cfg Config) error {
	cfg, err := cfg.complete()
	if err != nil {
		return err
	}
	s, err := newShared(cfg)
	if err != nil {
		return err
	}
	if err = s.run(ctx); ctx.Err() != nil {
		err = nil // it was stopped, and an error then means nothing
	}
	if removeErr := os.RemoveAll(s.logDir); removeErr != nil {
		err = errors.Join(err, fmt.Errorf("removing the logs of simulated containers: %w", removeErr))
	}
	return err
}

// shared is used by all nodes.
type shared struct {
	cfg    Config
	rest   *rest.Config
	client kubernetes.Interface

	pods, nodes, services cache.SharedIndexInformer
	volumes               *volumes.Manager
	events                []record.EventBroadcaster
	addresses             *addresses
	logDir                string // it is made with the first log
	streams               streaming.Server
	port                  int

	all    []*simulatedNode
	byName map[string]*simulatedNode
}

func newShared(cfg Config) (*shared, error) {
	s := &shared{cfg: cfg, addresses: newAddresses(podRange), byName: map[string]*simulatedNode{}}
	s.rest = kubelet.ClientConfig(cfg.Client, "flyball-simulated-kubelet")
	var err error
	if s.client, err = kubernetes.NewForConfig(s.rest); err != nil {
		return nil, fmt.Errorf("creating the API client of simulated nodes: %w", err)
	}
	s.logDir = filepath.Join(os.TempDir(), "flyball-simulated-"+newID()[:16])
	// Pods that are not bound to a node are not needed.
	bound := informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermNotEqualSelector("spec.nodeName", "").String()
	})
	slim := informers.WithTransform(withoutManagedFields)
	s.pods = informers.NewSharedInformerFactoryWithOptions(s.client, 0, bound, slim).Core().V1().Pods().Informer()
	if err := s.pods.AddIndexers(podIndexers); err != nil {
		return nil, fmt.Errorf("indexing the Pods of simulated nodes: %w", err)
	}
	others := informers.NewSharedInformerFactoryWithOptions(s.client, 0, slim).Core().V1()
	s.nodes, s.services = others.Nodes().Informer(), others.Services().Informer()
	s.volumes, err = volumes.New(volumes.Config{
		NoFiles: true, RootDir: s.logDir, Client: s.client, Changed: s.retry,
		Allocatable: func() v1.ResourceList { return node.Allocatable(capacity()) },
		Event: func(p *v1.Pod, kind, reason, message string) {
			s.recorder(0, p.Spec.NodeName).Event(p, kind, reason, message)
		},
	})
	return s, err
}

// retry has a node try again what failed for a Pod.
func (s *shared) retry(uid types.UID) {
	pods, _ := s.pods.GetIndexer().ByIndex(byUID, string(uid)) // the index exists
	for _, p := range pods {
		if n := s.byName[p.(*v1.Pod).Spec.NodeName]; n != nil {
			n.Pods.Retry(uid)
		}
	}
}

// withoutManagedFields removes the managed fields, which the agent never reads and which are often
// half of an object.
func withoutManagedFields(obj any) (any, error) {
	if o, ok := obj.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	return obj, nil
}

// run starts everything in order, and returns when all of it has ended.
func (s *shared) run(ctx context.Context) error {
	all, ctx := errgroup.WithContext(ctx)
	s.startEvents(ctx)
	defer func() {
		for _, b := range s.events {
			b.Shutdown()
		}
	}()
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
	synced, err := s.dispatch()
	if err != nil {
		return err
	}
	for _, informer := range []cache.SharedIndexInformer{s.pods, s.nodes, s.services} {
		all.Go(func() error { informer.RunWithContext(ctx); return nil })
	}
	all.Go(func() error { return s.volumes.Run(ctx) })
	if cache.WaitFor(ctx, "", synced...) {
		s.start(ctx, all)
	}
	return all.Wait()
}

// start starts the nodes, startAtOnce at a time, and calls Ready when Awaited of them are ready.
func (s *shared) start(ctx context.Context, all *errgroup.Group) {
	ready := func() {
		if s.cfg.Ready != nil {
			s.cfg.Ready()
		}
	}
	if s.cfg.Awaited == 0 {
		ready() // there are no nodes
	}
	var starting errgroup.Group
	starting.SetLimit(startAtOnce)
	var started atomic.Int64
	for _, n := range s.all {
		starting.Go(func() error {
			if ctx.Err() != nil {
				return nil //nolint:nilerr // the end of ctx is no failure of the start
			}
			all.Go(func() error { return n.run(ctx) })
			select {
			case <-n.ready:
				if started.Add(1) == int64(s.cfg.Awaited) {
					ready()
				}
			case <-ctx.Done():
			}
			return nil
		})
	}
	_ = starting.Wait()
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

func (s *shared) recorder(i int, nodeName string) record.EventRecorder {
	return s.events[i%len(s.events)].NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: nodeName})
}

func nodeIP(i int) netip.Addr {
	ip := nodeRange.Addr().As4()
	ip[2], ip[3] = byte((i+1)>>8), byte(i+1)
	return netip.AddrFrom4(ip)
}
