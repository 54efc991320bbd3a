package programs

import (
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
)

// How often upstream's collector looks which kinds there are: often for a while after a definition has changed, and seldom
// otherwise.
const (
	lookSoon   = 100 * time.Millisecond
	lookUntil  = 3 * time.Second
	lookSeldom = 30 * time.Second
)

// syncPeriod is the least time between two looks, and the most that the collector waits for new caches before it goes on.
const syncPeriod = 300 * time.Millisecond

// collectorWorkers is how many objects are asked for and deleted at once. Upstream's default is 20, which is most of the time that
// thousands of Pods take to go away on a busy machine: each worker waits for two answers per object.
const collectorWorkers = 100

// collectGarbage runs upstream's garbage collector until ctx ends. In kube-controller-manager it asks every 30 seconds which
// kinds there are, and until then collects nothing that an object of a new kind owns; that is longer than most tests wait.
// Here it asks when a definition has changed.
func collectGarbage(ctx context.Context, rc *rest.Config) error {
	rc = rest.AddUserAgent(rc, "generic-garbage-collector")
	rc.QPS = -1
	client, err := kubernetes.NewForConfig(rc)
	if err != nil {
		return fmt.Errorf("connecting the garbage collector: %w", err)
	}
	metadataClient, err := metadata.NewForConfig(rc)
	if err != nil {
		return fmt.Errorf("connecting the garbage collector: %w", err)
	}
	objects := metadatainformer.NewSharedInformerFactory(metadataClient, 0)
	kinds := &kinds{ServerResourcesInterface: client.Discovery(), ctx: ctx, changed: make(chan struct{}, 1)}
	for _, definitions := range []schema.GroupVersionResource{
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
		{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
	} {
		if _, err := objects.ForResource(definitions).Informer().AddEventHandler(kinds.handler()); err != nil {
			return fmt.Errorf("watching %s: %w", definitions.Resource, err)
		}
	}
	factory := informerfactory.NewInformerFactory(informers.NewSharedInformerFactory(client, 0), objects)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	started := make(chan struct{})
	collector, err := garbagecollector.NewGarbageCollector(ctx, client, metadataClient, mapper, garbagecollector.DefaultIgnoredResources(), factory, started)
	if err != nil {
		return fmt.Errorf("setting up the garbage collector: %w", err)
	}
	factory.Start(ctx.Done())
	close(started)
	var syncing sync.WaitGroup
	syncing.Go(func() { collector.Sync(ctx, kinds, syncPeriod) })
	defer syncing.Wait()
	collector.Run(ctx, collectorWorkers, lookSeldom)
	return nil
}

// kinds answers which kinds there are when that may have changed, or when lookSeldom has passed.
type kinds struct {
	discovery.ServerResourcesInterface

	ctx     context.Context
	changed chan struct{}
	asked   bool
	soon    time.Time // until when it is asked often
}

// ServerPreferredResources implements discovery.ServerResourcesInterface.
func (k *kinds) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	if k.asked {
		wait := lookSeldom
		if time.Now().Before(k.soon) {
			wait = lookSoon
		}
		select {
		case <-k.changed:
			k.soon = time.Now().Add(lookUntil)
			time.Sleep(lookSoon) // the server needs a moment to serve it, and definitions come in heaps
		case <-time.After(wait):
		case <-k.ctx.Done():
			return nil, k.ctx.Err()
		}
	}
	k.asked = true
	return k.ServerResourcesInterface.ServerPreferredResources()
}

func (k *kinds) handler() cache.ResourceEventHandler {
	look := func() {
		select {
		case k.changed <- struct{}{}:
		default:
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { look() }, UpdateFunc: func(any, any) { look() }, DeleteFunc: func(any) { look() },
	}
}
