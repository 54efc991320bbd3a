package node

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Source is where the Node object of this machine is learnt of.
type Source interface {
	// Run calls changed, which does not block, whenever the Node changed, until ctx
	// ends, so that what others do to it (assign a podCIDR, mark it Unknown after a
	// silence, delete it) is answered at once.
	Run(ctx context.Context, changed func())
	// Node returns the object as last seen, nil if there is none or it was not seen yet.
	Node() *v1.Node
}

// watched is a watch of one Node.
type watched struct {
	name    string
	client  kubernetes.Interface
	changed func()
	store   cache.Store
	watch   cache.Controller
}

func newWatched(client kubernetes.Interface, name string) *watched {
	w := &watched{name: name, client: client}
	nodes := client.CoreV1().Nodes()
	only := fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	look := func() { w.changed() }
	w.store, w.watch = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = only
				return nodes.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
				o.FieldSelector = only
				return nodes.Watch(ctx, o)
			},
		}, client),
		ObjectType: &v1.Node{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { look() },
			UpdateFunc: func(any, any) { look() },
			DeleteFunc: func(any) { look() },
		},
	})
	return w
}

// Run implements Source.
func (w *watched) Run(ctx context.Context, changed func()) {
	w.changed = changed
	w.watch.Run(ctx.Done())
}

// Node implements Source.
func (w *watched) Node() *v1.Node {
	obj, ok, err := w.store.GetByKey(w.name)
	if err != nil || !ok {
		return nil
	}
	return obj.(*v1.Node)
}
