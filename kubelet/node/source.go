package node

import (
	"context"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Source watches the Node of this host.
type Source interface {
	// Run calls changed, which does not block, for each change of the Node until ctx ends. Others
	// assign a podCIDR, mark the Node Unknown after missed heartbeats, or delete it; each is
	// reconciled at once.
	Run(ctx context.Context, changed func())
	// Node returns the object as last watched, nil if there is none or it was not seen yet.
	Node() *v1.Node
}

// nodeWatch is an informer of one Node.
type nodeWatch struct {
	name     string
	informer cache.SharedIndexInformer
}

// NewWatch returns a Source that watches the Node of a name through the API server.
func NewWatch(client kubernetes.Interface, name string) Source {
	only := func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	}
	return nodeWatch{name, coreinformers.NewFilteredNodeInformer(client, 0, cache.Indexers{}, only)}
}

func (w nodeWatch) Run(ctx context.Context, changed func()) {
	if _, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, UpdateFunc: func(any, any) { changed() }, DeleteFunc: func(any) { changed() },
	}); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot watch the Node") // only an informer that has ended refuses
	}
	w.informer.RunWithContext(ctx)
}

func (w nodeWatch) Node() *v1.Node {
	obj, ok, err := w.informer.GetStore().GetByKey(w.name)
	if err != nil || !ok {
		return nil
	}
	return obj.(*v1.Node)
}
