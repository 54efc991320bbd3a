//go:build linux

package kubelet

import (
	"context"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// services watches the Services, which containers have in their environment.
type services struct{ informer coreinformers.ServiceInformer }

func newServices(client kubernetes.Interface) services {
	s := services{informers.NewSharedInformerFactory(client, 0).Core().V1().Services()}
	s.informer.Informer() // before Run, so that list waits for it
	return s
}

func (s services) Run(ctx context.Context) error {
	s.informer.Informer().RunWithContext(ctx)
	return nil
}

// list returns the Services of a namespace, once they have been read.
func (s services) list(ctx context.Context, namespace string) ([]*v1.Service, error) {
	if !cache.WaitFor(ctx, "", s.informer.Informer().HasSyncedChecker()) {
		return nil, context.Cause(ctx)
	}
	return s.informer.Lister().Services(namespace).List(labels.Everything())
}
