package simulated

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/ptr"
)

// Indexes of the Pods of all nodes.
const byNode, byUID = "node", "uid"

var podIndexers = cache.Indexers{
	byNode: func(obj any) ([]string, error) { return []string{obj.(*v1.Pod).Spec.NodeName}, nil },
	byUID:  func(obj any) ([]string, error) { return []string{string(obj.(*v1.Pod).UID)}, nil },
}

// podSource has the Pods of one node, from the watch of all nodes' Pods. It implements pod.Source.
type podSource struct {
	node string
	pods cache.Indexer

	// delivering keeps the handler's events in order.
	delivering sync.Mutex
	handler    cache.ResourceEventHandler // nil before and after Run
}

// Run implements pod.Source. The watch has delivered all Pods before. Events that are on their way
// are delivered again.
func (s *podSource) Run(ctx context.Context, handler cache.ResourceEventHandler, synced func()) error {
	s.delivering.Lock()
	s.handler = handler
	for _, p := range s.Pods() {
		handler.OnAdd(p, true)
	}
	s.delivering.Unlock()
	synced()
	<-ctx.Done()
	s.delivering.Lock()
	defer s.delivering.Unlock()
	s.handler = nil
	return nil
}

func (s *podSource) Pods() []*v1.Pod {
	objs, _ := s.pods.ByIndex(byNode, s.node) // the index exists
	pods := make([]*v1.Pod, len(objs))
	for i, obj := range objs {
		pods[i] = obj.(*v1.Pod)
	}
	return pods
}

func (s *podSource) Pod(namespace, name string) (*v1.Pod, bool) {
	obj, ok, err := s.pods.GetByKey(namespace + "/" + name)
	if err != nil || !ok || obj.(*v1.Pod).Spec.NodeName != s.node {
		return nil, false
	}
	return obj.(*v1.Pod), true
}

// current returns a Pod if the API server has it with this UID, otherwise nil.
func (s *podSource) current(m *runtimeapi.PodSandboxMetadata) *v1.Pod {
	p, ok := s.Pod(m.GetNamespace(), m.GetName())
	if !ok || p.UID != types.UID(m.GetUid()) {
		return nil
	}
	return p
}

// deliver delivers an event: the Pod was added if old is nil, and deleted if p is nil.
func (s *podSource) deliver(old, p *v1.Pod) {
	s.delivering.Lock()
	defer s.delivering.Unlock()
	switch {
	case s.handler == nil:
	case p == nil:
		s.handler.OnDelete(old)
	case old == nil:
		s.handler.OnAdd(p, false)
	default:
		s.handler.OnUpdate(old, p)
	}
}

// nodeSource has the object of one node, from the watch of all Nodes. It implements node.Source.
type nodeSource struct {
	name    string
	nodes   cache.Store
	changed atomic.Pointer[func()]
}

func (s *nodeSource) Run(ctx context.Context, changed func()) {
	s.changed.Store(&changed)
	changed() // the Node may exist already
	<-ctx.Done()
	s.changed.Store(nil)
}

func (s *nodeSource) Node() *v1.Node {
	obj, ok, err := s.nodes.GetByKey(s.name)
	if err != nil || !ok {
		return nil
	}
	return obj.(*v1.Node)
}

// podCIDRs returns the ranges of the node's Pods: one or two, none before they are assigned.
func (s *nodeSource) podCIDRs() []netip.Prefix {
	var ranges []netip.Prefix
	for _, text := range ptr.Deref(s.Node(), v1.Node{}).Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}

func (s *nodeSource) enqueue() {
	if changed := s.changed.Load(); changed != nil {
		(*changed)()
	}
}
