package controllers

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/util/consistency"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"flyball.dev/controllers/deployment"
	"flyball.dev/controllers/internal/controllerref"
	"flyball.dev/controllers/internal/expectations"
	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/replicaset"
)

// starter starts the loops on a manager, once this process leads.
type starter struct {
	mgr         ctrl.Manager
	broadcaster record.EventBroadcaster
	kinds       []schema.GroupVersion
	ready       func()
	running     atomic.Bool
}

// checkReady returns an error until the loops run. A process that waits to lead is ready too.
func (s *starter) checkReady(*http.Request) error {
	select {
	case <-s.mgr.Elected():
	default:
		return nil
	}
	if !s.running.Load() {
		return errors.New("the loops are starting: caches are being filled, or a kind is not served yet")
	}
	return nil
}

// Start starts all loops, each group's as soon as its kinds are served. It implements
// manager.Runnable.
func (s *starter) Start(ctx context.Context) error {
	if err := s.mgr.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, controllerref.Index, controllerref.Keys); err != nil {
		return fmt.Errorf("indexing Pods: %w", err)
	}
	starting, startCtx := errgroup.WithContext(ctx)
	for _, version := range s.kinds {
		starting.Go(func() error { return s.startGroup(startCtx, version) })
	}
	err := starting.Wait()
	if errors.Is(err, context.Canceled) || err == nil && !s.mgr.GetCache().WaitForCacheSync(ctx) {
		return nil
	}
	if err != nil {
		return err
	}
	s.running.Store(true)
	if s.ready != nil {
		s.ready()
	}
	return nil
}

// startGroup adds the loops of one API group to the manager, once its kinds are served. The sources
// that Events name are upstream's, because tools know them.
func (s *starter) startGroup(ctx context.Context, version schema.GroupVersion) error {
	group, err := kinds.For(version)
	if err != nil {
		return err
	}
	if err := s.waitServed(ctx, version); err != nil {
		return err
	}
	index := s.mgr.GetFieldIndexer()
	if err := index.IndexField(ctx, group.ReplicaSets.New(), controllerref.Index, controllerref.Keys); err != nil {
		return fmt.Errorf("indexing ReplicaSets: %w", err)
	}
	stores := map[schema.GroupResource]consistency.LastSyncRVGetter{}
	for resource, object := range map[schema.GroupResource]client.Object{
		group.Deployments.Resource: group.Deployments.New(),
		group.ReplicaSets.Resource: group.ReplicaSets.New(),
		kinds.Pods().Resource:      &corev1.Pod{},
	} {
		informer, err := s.mgr.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching %s: %w", resource, err)
		}
		stores[resource] = informer.(toolscache.SharedIndexInformer).GetStore()
	}
	c, live, types := s.mgr.GetClient(), s.mgr.GetAPIReader(), s.mgr.GetScheme()
	replicaSets := &replicaset.Reconciler{
		Kind: group.ReplicaSets, Client: c, Live: live, Expectations: expectations.New(stores),
		Events: s.broadcaster.NewRecorder(types, corev1.EventSource{Component: "replicaset-controller"}),
	}
	deployments := &deployment.Reconciler{
		Deployments: group.Deployments, ReplicaSets: group.ReplicaSets,
		Client: c, Live: live, Expectations: expectations.New(stores),
		Events: s.broadcaster.NewRecorder(types, corev1.EventSource{Component: "deployment-controller"}),
	}
	err = errors.Join(
		replicaSets.Watch(s.loop("replicaset", version)).Complete(graceful{replicaSets}),
		deployments.Watch(s.loop("deployment", version)).Complete(graceful{deployments}),
	)
	if err != nil {
		return fmt.Errorf("starting the loops for %s: %w", version, err)
	}
	return nil
}

// loop begins the registration of a loop. An object that fails is reconciled again soon, and at
// least every 15 seconds: no event says that the cause, a quota say, is gone.
func (s *starter) loop(name string, version schema.GroupVersion) *builder.Builder {
	return ctrl.NewControllerManagedBy(s.mgr).
		Named(name + "." + version.Group).
		WithOptions(controller.Options{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](5*time.Millisecond, 15*time.Second),
		})
}

// waitServed returns when the API server serves a group's kinds, or ctx is cancelled.
func (s *starter) waitServed(ctx context.Context, version schema.GroupVersion) error {
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 1.5, Steps: 12, Cap: 5 * time.Second}
	return backoff.DelayFunc().Until(ctx, true, true, func(context.Context) (bool, error) {
		for _, kind := range []string{"Deployment", "ReplicaSet"} {
			if _, err := s.mgr.GetRESTMapper().RESTMapping(version.WithKind(kind).GroupKind(), version.Version); err != nil {
				klog.FromContext(ctx).V(1).Info("Waiting for the API server to serve a kind; apply config/crd if it never does",
					"kind", version.WithKind(kind), "err", err)
				return false, nil
			}
		}
		return true, nil
	})
}

// grace is how long a Reconcile may still take when the process ends.
const grace = 500 * time.Millisecond

// graceful lets a Reconcile that runs when the process ends finish, if it does so soon: a request
// that is cancelled may or may not have been served. It starts none then: the next process
// reconciles what is queued.
type graceful struct{ loop reconcile.Reconciler }

// Reconcile implements reconcile.Reconciler.
func (g graceful) Reconcile(process context.Context, request ctrl.Request) (ctrl.Result, error) {
	if process.Err() != nil {
		return ctrl.Result{}, nil
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(process))
	defer cancel()
	defer context.AfterFunc(process, func() { time.AfterFunc(grace, cancel) })()
	result, err := g.loop.Reconcile(ctx, request)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil // the end of the process is no failure
	}
	return result, err
}
