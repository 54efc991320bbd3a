package pod

import (
	"context"
	"fmt"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Source is where a Manager learns of the Pods of its node.
type Source interface {
	// Run tells handler of each Pod of the node, and of each change, one after the
	// other, until ctx ends. It calls told once handler has heard of all Pods that
	// there were at the start.
	Run(ctx context.Context, handler cache.ResourceEventHandler, told func()) error
	// Pods and Pod are what handler was told of last. They are not to be changed.
	Pods() []*v1.Pod
	Pod(namespace, name string) (*v1.Pod, bool)
}

// watched is a watch of the Pods that are bound to one node.
type watched struct {
	node     string
	informer cache.SharedIndexInformer
}

func newWatched(client kubernetes.Interface, node string) watched {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
		}))
	return watched{node, factory.Core().V1().Pods().Informer()}
}

// Run implements Source.
func (w watched) Run(ctx context.Context, handler cache.ResourceEventHandler, told func()) error {
	registered, err := w.informer.AddEventHandler(handler)
	if err != nil {
		return fmt.Errorf("watching the Pods of node %s: %w", w.node, err)
	}
	var waiting sync.WaitGroup
	defer waiting.Wait()
	waiting.Go(func() {
		// Not the informer's own HasSynced: that says that the Pods are known to it,
		// while handler may not have heard of them yet.
		if cache.WaitForCacheSync(ctx.Done(), registered.HasSynced) {
			told()
		}
	})
	w.informer.RunWithContext(ctx)
	return nil
}

// Pods implements Source.
func (w watched) Pods() []*v1.Pod {
	objects := w.informer.GetStore().List()
	pods := make([]*v1.Pod, 0, len(objects))
	for _, o := range objects {
		pods = append(pods, o.(*v1.Pod)) //nolint:forcetypeassert // an informer of Pods
	}
	return pods
}

// Pod implements Source.
func (w watched) Pod(namespace, name string) (*v1.Pod, bool) {
	o, ok, err := w.informer.GetStore().GetByKey(namespace + "/" + name)
	if err != nil || !ok {
		return nil, false
	}
	return o.(*v1.Pod), true //nolint:forcetypeassert // an informer of Pods
}
