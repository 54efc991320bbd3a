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
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"

	"flyball.dev/internal/trigger"
)

// Intervals at which upstream's collector discovers kinds: short for a while after a definition has
// changed, and long otherwise.
const (
	discoverySoon   = 100 * time.Millisecond
	discoveryUntil  = 3 * time.Second
	discoveryPeriod = 30 * time.Second
)

// syncPeriod is the shortest time between two discoveries, and the longest wait for new caches.
const syncPeriod = 300 * time.Millisecond

// collectorWorkers is how many objects are read and deleted at once. With upstream's 20, waiting
// for two answers per object takes most of the time in which thousands of Pods are deleted.
const collectorWorkers = 100

// collectGarbage runs upstream's garbage collector until ctx ends. In kube-controller-manager it
// discovers kinds every 30 seconds, and until then collects no dependents of an object of a new
// kind. That is longer than most tests wait, so here it discovers kinds when a definition has
// changed.
func collectGarbage(ctx context.Context, server Server, _ func()) error {
	rc := rest.AddUserAgent(server.Client, "generic-garbage-collector")
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
	kinds := &kinds{ServerResourcesInterface: client.Discovery(), ctx: ctx, changed: trigger.New()}
	for _, definitions := range []schema.GroupVersionResource{
		{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
		{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"},
	} {
		if _, err := objects.ForResource(definitions).Informer().AddEventHandler(kinds.changed); err != nil {
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
	collector.Run(ctx, collectorWorkers, discoveryPeriod)
	return nil
}

// kinds is a discovery client that blocks until kinds may have changed, or until discoveryPeriod
// has passed.
type kinds struct {
	discovery.ServerResourcesInterface

	ctx        context.Context
	changed    trigger.Trigger
	discovered bool
	soon       time.Time // until when discovery is frequent
}

// ServerPreferredResources implements discovery.ServerResourcesInterface.
func (k *kinds) ServerPreferredResources() ([]*metav1.APIResourceList, error) {
	if k.discovered {
		wait := discoveryPeriod
		if time.Now().Before(k.soon) {
			wait = discoverySoon
		}
		select {
		case <-k.changed:
			k.soon = time.Now().Add(discoveryUntil)
			time.Sleep(discoverySoon) // the server needs a moment to serve it, and several definitions come together
		case <-time.After(wait):
		case <-k.ctx.Done():
			return nil, k.ctx.Err()
		}
	}
	k.discovered = true
	return k.ServerResourcesInterface.ServerPreferredResources()
}
