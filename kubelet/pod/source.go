package pod

import (
	"context"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// Source has the Pods of a node. A source of static Pods delivers the mirror Pods too, whenever the
// API server has them; it is the only thing that static Pods need besides this package.
type Source interface {
	// Run calls handler for each Pod and each change, one after the other, until ctx ends. It calls
	// synced after handler has seen all Pods that there were at the start.
	Run(ctx context.Context, handler cache.ResourceEventHandler, synced func()) error
	// Pods returns a new list of all Pods, mirror Pods among them. The Pods must not be changed.
	Pods() []*v1.Pod
	// Pod returns a Pod by its name, of a static Pod and its mirror the static one.
	Pod(namespace, name string) (*v1.Pod, bool)
}

type watched struct {
	node     string
	informer cache.SharedIndexInformer
	lister   corelisters.PodLister
}

func newWatched(client kubernetes.Interface, node string) watched {
	pods := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
		})).Core().V1().Pods()
	return watched{node, pods.Informer(), pods.Lister()}
}

// Run implements Source.
func (w watched) Run(ctx context.Context, handler cache.ResourceEventHandler, synced func()) error {
	registered, err := w.informer.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("watching the Pods of node %s: %w", w.node, err)
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() {
		// Not the informer's own HasSynced: that is true while handler has not seen all Pods yet.
		if cache.WaitForCacheSync(ctx.Done(), registered.HasSynced) {
			synced()
		}
	})
	w.informer.RunWithContext(ctx)
	return nil
}

// Pods implements Source.
func (w watched) Pods() []*v1.Pod {
	pods, _ := w.lister.List(labels.Everything()) // from a cache, which cannot fail
	return pods
}

// Pod implements Source.
func (w watched) Pod(namespace, name string) (*v1.Pod, bool) {
	pod, err := w.lister.Pods(namespace).Get(name)
	return pod, err == nil
}
