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
)

// Services and EndpointSlices with these labels are somebody else's, or nobody's.
const selector = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name"

// ref names a Service, or a Pod of this node, whose wishes may have changed.
type ref struct {
	pod  bool
	name string
}

// observer keeps caches of what the proxy reads, and notes which Services and Pods changed.
type observer struct {
	factories []informers.SharedInformerFactory
	services  cache.SharedIndexInformer
	slices    cache.SharedIndexInformer
	pods      cache.SharedIndexInformer
	nodes     cache.SharedIndexInformer // this Node alone

	changed chan struct{} // has an item while dirty has

	mu    sync.Mutex
	dirty map[ref]struct{}
	here  place
}

func newObserver(client kubernetes.Interface, nodeName string) *observer {
	o := &observer{changed: make(chan struct{}, 1), dirty: map[ref]struct{}{}, here: place{node: nodeName}}
	factory := func(tweak func(*metav1.ListOptions)) informers.SharedInformerFactory {
		f := informers.NewSharedInformerFactoryWithOptions(client, 0,
			informers.WithTweakListOptions(tweak), informers.WithTransform(trim))
		o.factories = append(o.factories, f)
		return f
	}
	shared := factory(func(l *metav1.ListOptions) { l.LabelSelector = selector })
	fieldIsNode := func(field string) func(*metav1.ListOptions) {
		return func(l *metav1.ListOptions) { l.FieldSelector = fields.OneTermEqualSelector(field, nodeName).String() }
	}
	o.services = shared.Core().V1().Services().Informer()
	o.slices = shared.Discovery().V1().EndpointSlices().Informer()
	o.pods = factory(fieldIsNode("spec.nodeName")).Core().V1().Pods().Informer()
	o.nodes = factory(fieldIsNode("metadata.name")).Core().V1().Nodes().Informer()
	return o
}

// byService indexes EndpointSlices by the Service they belong to.
const byService = "service"

// start fills the caches; everything in them is dirty then.
func (o *observer) start(ctx context.Context) error {
	err := o.slices.AddIndexers(cache.Indexers{byService: func(obj any) ([]string, error) {
		return []string{owner(obj).name}, nil
	}})
	if err != nil {
		return fmt.Errorf("indexing EndpointSlices: %w", err)
	}
	var synced []cache.InformerSynced
	for _, i := range []cache.SharedIndexInformer{o.services, o.slices, o.pods, o.nodes} {
		// Whatever the event: what counts is what the caches say when it is this object's turn.
		reg, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    o.mark,
			UpdateFunc: func(old, obj any) { o.mark(old); o.mark(obj) },
			DeleteFunc: o.mark,
		})
		if err != nil {
			return fmt.Errorf("watching Services: %w", err)
		}
		synced = append(synced, reg.HasSynced)
	}
	for _, f := range o.factories {
		f.StartWithContext(ctx)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return fmt.Errorf("reading Services and EndpointSlices: %w", context.Cause(ctx))
	}
	return nil
}

// stop waits for the informers, whose context has ended.
func (o *observer) stop() {
	for _, f := range o.factories {
		f.Shutdown()
	}
}

func (o *observer) mark(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	if node, ok := obj.(*corev1.Node); ok {
		o.move(node.Labels[corev1.LabelTopologyZone])
		return
	}
	r := owner(obj)
	if r.name == "" {
		return
	}
	o.mu.Lock()
	o.dirty[r] = struct{}{}
	o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

// move notes this Node's zone. If that changed, all hints have to be read anew.
func (o *observer) move(zone string) {
	o.mu.Lock()
	moved := o.here.zone != zone
	o.here.zone = zone
	o.mu.Unlock()
	if moved {
		for _, svc := range o.services.GetStore().List() {
			o.mark(svc)
		}
	}
}

// owner is whose wishes an object is part of.
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

// take hands over what changed since it was last called.
func (o *observer) take() []ref {
	o.mu.Lock()
	defer o.mu.Unlock()
	refs := make([]ref, 0, len(o.dirty))
	for r := range o.dirty {
		refs = append(refs, r)
	}
	clear(o.dirty)
	return refs
}

func (o *observer) service(name string) Service {
	obj, _, _ := o.services.GetStore().GetByKey(name)
	svc, _ := obj.(*corev1.Service)
	var slices []*discoveryv1.EndpointSlice
	objs, _ := o.slices.GetIndexer().ByIndex(byService, name)
	for _, obj := range objs {
		slices = append(slices, obj.(*discoveryv1.EndpointSlice))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return observeService(name, svc, slices, o.here)
}

func (o *observer) pod(name string) HostPortPod {
	obj, _, _ := o.pods.GetStore().GetByKey(name)
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
