package proxy

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"flyball.dev/internal/trigger"
)

// selector leaves out the Services and EndpointSlices that another proxy serves, or none.
const selector = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"

// byService indexes EndpointSlices by the Service they belong to.
const byService = "service"

// ref names a Service, or a Pod of this node, that may want something else in the table.
type ref struct {
	pod  bool
	name string
}

// caches hold the objects that the proxy reads, and queue the Services and Pods that changed.
type caches struct {
	factories []informers.SharedInformerFactory
	services  cache.SharedIndexInformer
	slices    cache.SharedIndexInformer
	pods      cache.SharedIndexInformer
	nodes     cache.SharedIndexInformer // this Node alone

	changed trigger.Trigger // set while queue has an item

	mu    sync.Mutex
	queue map[ref]struct{}
	here  place
}

func newCaches(client kubernetes.Interface, nodeName string) *caches {
	c := &caches{changed: trigger.New(), queue: map[ref]struct{}{}, here: place{node: nodeName}}
	shared := c.factory(client, func(l *metav1.ListOptions) { l.LabelSelector = selector })
	c.services = shared.Core().V1().Services().Informer()
	c.slices = shared.Discovery().V1().EndpointSlices().Informer()
	c.pods = c.factory(client, func(l *metav1.ListOptions) {
		l.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", nodeName).String()
	}).Core().V1().Pods().Informer()
	c.nodes = c.factory(client, func(l *metav1.ListOptions) {
		l.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, nodeName).String()
	}).Core().V1().Nodes().Informer()
	return c
}

func (c *caches) factory(client kubernetes.Interface, limit func(*metav1.ListOptions)) informers.SharedInformerFactory {
	f := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTweakListOptions(limit), informers.WithTransform(trim))
	c.factories = append(c.factories, f)
	return f
}

// start fills the caches, which queues everything in them.
func (c *caches) start(ctx context.Context) error {
	if err := c.slices.AddIndexers(cache.Indexers{byService: serviceOf}); err != nil {
		return fmt.Errorf("indexing EndpointSlices: %w", err)
	}
	var synced []cache.InformerSynced
	for _, i := range []cache.SharedIndexInformer{c.services, c.slices, c.pods, c.nodes} {
		reg, err := i.AddEventHandler(c)
		if err != nil {
			return fmt.Errorf("watching Services: %w", err)
		}
		synced = append(synced, reg.HasSynced)
	}
	for _, f := range c.factories {
		f.StartWithContext(ctx)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("reading Services and EndpointSlices: %w", context.Cause(ctx))
	}
	return nil
}

// stop waits for the informers, whose context has ended.
func (c *caches) stop() {
	for _, f := range c.factories {
		f.Shutdown()
	}
}

// OnAdd implements cache.ResourceEventHandler. The plan reads the caches, not the event.
func (c *caches) OnAdd(obj any, _ bool) { c.enqueue(obj) }

// OnUpdate implements cache.ResourceEventHandler.
func (c *caches) OnUpdate(old, obj any) { c.enqueue(old); c.enqueue(obj) }

// OnDelete implements cache.ResourceEventHandler.
func (c *caches) OnDelete(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	c.enqueue(obj)
}

func (c *caches) enqueue(obj any) {
	if node, ok := obj.(*corev1.Node); ok {
		c.move(node.Labels[corev1.LabelTopologyZone])
		return
	}
	r := owner(obj)
	if r.name == "" {
		return
	}
	c.mu.Lock()
	c.queue[r] = struct{}{}
	c.mu.Unlock()
	c.changed.Set()
}

// move records this Node's zone. If that changed, all hints have to be read again.
func (c *caches) move(zone string) {
	c.mu.Lock()
	moved := c.here.zone != zone
	c.here.zone = zone
	c.mu.Unlock()
	if moved {
		for _, svc := range c.services.GetStore().List() {
			c.enqueue(svc)
		}
	}
}

// take empties the queue.
func (c *caches) take() []ref {
	c.mu.Lock()
	defer c.mu.Unlock()
	refs := make([]ref, 0, len(c.queue))
	for r := range c.queue {
		refs = append(refs, r)
	}
	clear(c.queue)
	return refs
}

// owner is the Service or Pod that an object belongs to.
func owner(obj any) ref {
	switch obj := obj.(type) {
	case *corev1.Service:
		return ref{name: obj.Namespace + "/" + obj.Name}
	case *discoveryv1.EndpointSlice:
		if s := obj.Labels[discoveryv1.LabelServiceName]; s != "" {
			return ref{name: obj.Namespace + "/" + s}
		}
	case *corev1.Pod:
		return ref{pod: true, name: obj.Namespace + "/" + obj.Name}
	}
	return ref{}
}

func serviceOf(obj any) ([]string, error) { return []string{owner(obj).name}, nil }

// service reads a Service and its EndpointSlices from the caches.
func (c *caches) service(name string) Service {
	obj, _, _ := c.services.GetStore().GetByKey(name)
	svc, _ := obj.(*corev1.Service)
	var slices []*discoveryv1.EndpointSlice
	objs, _ := c.slices.GetIndexer().ByIndex(byService, name)
	for _, obj := range objs {
		slices = append(slices, obj.(*discoveryv1.EndpointSlice))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return observeService(name, svc, slices, c.here)
}

// pod reads one of this node's Pods from the caches.
func (c *caches) pod(name string) HostPortPod {
	obj, _, _ := c.pods.GetStore().GetByKey(name)
	pod, _ := obj.(*corev1.Pod)
	return observePod(name, pod)
}

// trim keeps of an object what the proxy reads, before it enters the cache.
func trim(obj any) (any, error) {
	switch obj := obj.(type) {
	case *corev1.Service:
		trimMeta(&obj.ObjectMeta)
		obj.Spec.Selector, obj.Labels = nil, nil
	case *discoveryv1.EndpointSlice:
		trimMeta(&obj.ObjectMeta)
		for i := range obj.Endpoints {
			e := &obj.Endpoints[i]
			e.TargetRef, e.Hostname, e.DeprecatedTopology, e.Zone = nil, nil, nil, nil
		}
		obj.Labels = map[string]string{discoveryv1.LabelServiceName: obj.Labels[discoveryv1.LabelServiceName]}
	case *corev1.Node:
		trimMeta(&obj.ObjectMeta)
		obj.Spec, obj.Status = corev1.NodeSpec{}, corev1.NodeStatus{}
	case *corev1.Pod:
		trimMeta(&obj.ObjectMeta)
		obj.Labels = nil
		obj.Spec = corev1.PodSpec{
			HostNetwork:    obj.Spec.HostNetwork,
			Containers:     trimContainers(obj.Spec.Containers),
			InitContainers: trimContainers(obj.Spec.InitContainers),
		}
		obj.Status = corev1.PodStatus{Phase: obj.Status.Phase, PodIP: obj.Status.PodIP, PodIPs: obj.Status.PodIPs}
	}
	return obj, nil
}

func trimMeta(m *metav1.ObjectMeta) {
	m.ManagedFields, m.Annotations, m.OwnerReferences, m.Finalizers = nil, nil, nil, nil
}

func trimContainers(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for _, c := range containers {
		if len(c.Ports) > 0 {
			kept = append(kept, corev1.Container{Ports: c.Ports, RestartPolicy: c.RestartPolicy})
		}
	}
	return kept
}
