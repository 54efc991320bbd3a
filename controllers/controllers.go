// Package controllers runs Flyball's own loops: Deployments and ReplicaSets, of apps/v1 and of
// apps.flyball.dev/v1alpha1.
//
// Each loop is a package of its own, with a Reconcile that observes, plans without side effects,
// and acts. This package wires them: one controller-runtime manager, one cache for all (a Pod is in
// it once, and only with the fields that a loop reads), one list of loops. It leaves the Pods of
// deleted owners to upstream's garbage collector, and everything else about Pods to the
// kube-scheduler and the kubelet.
//
// While the API server does not serve the kinds of one group yet, the loops of the other group run:
// a cluster without our CRDs still has its Deployments.
package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/samber/lo"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	clientfeatures "k8s.io/client-go/features"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/util/consistency"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/deployment"
	"flyball.dev/controllers/internal/controllerref"
	"flyball.dev/controllers/internal/expectations"
	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/replicaset"
)

// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,namespace=kube-system,verbs=get;create;update
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// Config is what Run needs.
type Config struct {
	// Client reaches the API server. Its rate limits are ignored: the API server's priority and
	// fairness is the limit.
	Client *rest.Config
	// Kinds are the API groups whose Deployments and ReplicaSets are reconciled: apps/v1,
	// apps.flyball.dev/v1alpha1, or both. Empty means both. In a cluster whose
	// kube-controller-manager runs its own loops, only the second may be.
	Kinds []schema.GroupVersion
	// LeaderElection lets one of several processes work at a time. The Lease is
	// LeaseNamespace/flyball-controllers; LeaseNamespace defaults to kube-system.
	LeaderElection bool
	LeaseNamespace string
	// MetricsAddress serves /metrics over HTTPS with a self-signed certificate, to users whom the
	// API server allows to get the path /metrics. HealthAddress serves /healthz and /readyz over
	// HTTP; ready means that the loops run, or that another process leads. Empty means that it is
	// not served.
	MetricsAddress, HealthAddress string
	// Ready, if not nil, is called once, when all loops run on full caches.
	Ready func()
}

// Loop is what one loop reads, and what it is the writer of.
type Loop struct {
	Name          string
	Reads, Writes []string
}

// Loops are all loops of Flyball. Each runs once per API group.
func Loops() []Loop {
	return []Loop{
		{
			Name:   "replicaset",
			Reads:  []string{"replicasets", "pods"},
			Writes: []string{"replicasets/status", "pods (creation, deletion, ownerReferences)", "events"},
		},
		{
			Name:  "deployment",
			Reads: []string{"deployments", "replicasets", "pods (Recreate, rollback.onCrashLoop)"},
			Writes: []string{
				"deployments/status", "deployments (annotation deployment.kubernetes.io/revision)",
				"replicasets (creation, deletion, ownerReferences, replicas, minReadySeconds, annotations)", "events",
			},
		},
	}
}

// workers is how many objects of one kind are reconciled at a time. A worker mostly waits for the
// API server.
const workers = 16

// Run runs all loops until ctx ends.
func Run(ctx context.Context, cfg Config) error {
	if !clientfeatures.FeatureGates().Enabled(clientfeatures.AtomicFIFO) {
		return errors.New("starting the controllers: client-go's feature AtomicFIFO is off; leave it on, it says how old a cache is")
	}
	if len(cfg.Kinds) == 0 {
		cfg.Kinds = []schema.GroupVersion{appsv1.SchemeGroupVersion, v1alpha1.GroupVersion}
	}
	restConfig := rest.CopyConfig(cfg.Client)
	restConfig.QPS = -1
	restConfig.UserAgent = "flyball-controllers"
	restConfig.WarningHandlerWithContext = rest.NoWarnings{} // they are about what a user wrote, and the user got them

	ctrl.SetLogger(klog.Background()) // some of controller-runtime uses only this logger
	mgr, err := ctrl.NewManager(restConfig, options(ctx, cfg))
	if err != nil {
		return fmt.Errorf("setting up the controllers: %w", err)
	}
	events, err := typedcorev1.NewForConfigAndClient(restConfig, mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("setting up the controllers' Events: %w", err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx))) // it outlives the loops
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: events.Events("")})

	w := &wiring{mgr: mgr, broadcaster: broadcaster, kinds: cfg.Kinds, ready: cfg.Ready}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("loops", w.check)); err != nil {
		return fmt.Errorf("setting up the health checks: %w", err)
	}
	if err := mgr.Add(w); err != nil {
		return fmt.Errorf("setting up the loops: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the controllers: %w", err)
	}
	return nil
}

func options(ctx context.Context, cfg Config) ctrl.Options {
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = v1alpha1.AddToScheme(known)
	return ctrl.Options{
		Scheme:      known,
		Logger:      klog.FromContext(ctx).V(1), // what controller-runtime logs is not news to a user
		BaseContext: func() context.Context { return ctx },
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: slim}},
		},
		Controller: config.Controller{
			// Names are unique within a manager; a process may have several.
			SkipNameValidation:      new(true),
			MaxConcurrentReconciles: workers,
		},
		Metrics: metricsserver.Options{
			BindAddress: cmp.Or(cfg.MetricsAddress, "0"), SecureServing: true,
			FilterProvider: filters.WithAuthenticationAndAuthorization,
		},
		HealthProbeBindAddress:        cmp.Or(cfg.HealthAddress, "0"),
		LeaderElection:                cfg.LeaderElection,
		LeaderElectionID:              "flyball-controllers",
		LeaderElectionNamespace:       cmp.Or(cfg.LeaseNamespace, "kube-system"),
		LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout:       new(10 * time.Second),
	}
}

// slim keeps the fields of a Pod that the loops read: metadata, node and state. That is a small
// share of it, and there are more Pods than anything else.
func slim(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	pod.ManagedFields = nil
	restarts := func(s corev1.ContainerStatus, _ int) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: s.Name, RestartCount: s.RestartCount}
	}
	return &corev1.Pod{
		TypeMeta: pod.TypeMeta, ObjectMeta: pod.ObjectMeta,
		Spec: corev1.PodSpec{
			NodeName: pod.Spec.NodeName,
			InitContainers: lo.Map(pod.Spec.InitContainers, func(c corev1.Container, _ int) corev1.Container {
				return corev1.Container{Name: c.Name, RestartPolicy: c.RestartPolicy}
			}),
		},
		Status: corev1.PodStatus{
			Phase: pod.Status.Phase, Conditions: pod.Status.Conditions,
			ContainerStatuses:     lo.Map(pod.Status.ContainerStatuses, restarts),
			InitContainerStatuses: lo.Map(pod.Status.InitContainerStatuses, restarts),
		},
	}, nil
}

// wiring starts the loops on a manager, once that leads.
type wiring struct {
	mgr         ctrl.Manager
	broadcaster record.EventBroadcaster
	kinds       []schema.GroupVersion
	ready       func()
	running     atomic.Bool
}

// check says whether the loops run. A process that waits to lead is ready too.
func (w *wiring) check(*http.Request) error {
	select {
	case <-w.mgr.Elected():
	default:
		return nil
	}
	if !w.running.Load() {
		return errors.New("the loops are starting: caches are being filled, or a kind is not served yet")
	}
	return nil
}

// Start starts all loops, each group's as soon as its kinds are served. It implements
// manager.Runnable.
func (w *wiring) Start(ctx context.Context) error {
	if err := w.mgr.GetFieldIndexer().IndexField(ctx, &corev1.Pod{}, controllerref.Index, controllerref.Keys); err != nil {
		return fmt.Errorf("indexing Pods: %w", err)
	}
	starting, startCtx := errgroup.WithContext(ctx)
	for _, version := range w.kinds {
		starting.Go(func() error { return w.startGroup(startCtx, version) })
	}
	if err := starting.Wait(); err != nil {
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
	if !w.mgr.GetCache().WaitForCacheSync(ctx) {
		return nil
	}
	w.running.Store(true)
	if w.ready != nil {
		w.ready()
	}
	return nil
}

func (w *wiring) startGroup(ctx context.Context, version schema.GroupVersion) error {
	group, err := kinds.For(version)
	if err != nil {
		return err
	}
	if err := w.served(ctx, group); err != nil {
		return err
	}
	index := w.mgr.GetFieldIndexer()
	if err := index.IndexField(ctx, group.ReplicaSets.New(), controllerref.Index, controllerref.Keys); err != nil {
		return fmt.Errorf("indexing ReplicaSets: %w", err)
	}
	if err := w.register(ctx, group); err != nil {
		return fmt.Errorf("starting the loops for %s: %w", version, err)
	}
	return nil
}

// register adds the loops of one API group to the manager. The sources that Events name are
// upstream's, because tools know them.
func (w *wiring) register(ctx context.Context, group kinds.Group) error {
	stores := map[schema.GroupResource]consistency.LastSyncRVGetter{}
	for resource, object := range map[schema.GroupResource]client.Object{
		group.Deployments.Resource: group.Deployments.New(),
		group.ReplicaSets.Resource: group.ReplicaSets.New(),
		kinds.Pods().Resource:      &corev1.Pod{},
	} {
		informer, err := w.mgr.GetCache().GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching %s: %w", resource, err)
		}
		stores[resource] = informer.(toolscache.SharedIndexInformer).GetStore()
	}
	c, live, known := w.mgr.GetClient(), w.mgr.GetAPIReader(), w.mgr.GetScheme()
	replicaSets := &replicaset.Reconciler{
		Kind: group.ReplicaSets, Client: c, Live: live, Expectations: expectations.New(stores),
		Events: w.broadcaster.NewRecorder(known, corev1.EventSource{Component: "replicaset-controller"}),
	}
	deployments := &deployment.Reconciler{
		Deployments: group.Deployments, ReplicaSets: group.ReplicaSets,
		Client: c, Live: live, Expectations: expectations.New(stores),
		Events: w.broadcaster.NewRecorder(known, corev1.EventSource{Component: "deployment-controller"}),
	}
	return errors.Join(
		replicaSets.Watch(w.loop("replicaset", group)).Complete(graceful{replicaSets}),
		deployments.Watch(w.loop("deployment", group)).Complete(graceful{deployments}),
	)
}

// loop begins the registration of a loop. An object that fails is reconciled again soon, and at
// least every 15 seconds: no event says that the cause, a quota say, is gone.
func (w *wiring) loop(name string, group kinds.Group) *builder.Builder {
	return ctrl.NewControllerManagedBy(w.mgr).
		Named(name + "." + group.Deployments.Group).
		WithOptions(controller.Options{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[ctrl.Request](5*time.Millisecond, 15*time.Second),
		})
}

// served waits until the API server serves a group's kinds, or ctx ends.
func (w *wiring) served(ctx context.Context, group kinds.Group) error {
	backoff := wait.Backoff{Duration: 50 * time.Millisecond, Factor: 1.5, Steps: 12, Cap: 5 * time.Second}
	return backoff.DelayFunc().Until(ctx, true, true, func(context.Context) (bool, error) {
		for _, kind := range []string{"Deployment", "ReplicaSet"} {
			version := group.Deployments.GroupVersion()
			if _, err := w.mgr.GetRESTMapper().RESTMapping(version.WithKind(kind).GroupKind(), version.Version); err != nil {
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
