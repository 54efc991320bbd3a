// Package controllers runs Flyball's own controllers, here called loops: those of Deployments and
// ReplicaSets, of apps/v1 and of apps.flyball.dev/v1alpha1.
//
// Each loop is a package of its own, with a Reconcile that observes, plans without side effects,
// and acts. This package wires them: one controller-runtime manager, one cache for all (a Pod is in
// it once, and only with the fields that a loop reads), one list of loops. They create and delete
// Pods; the kube-scheduler and the kubelet do the rest. The Pods of deleted owners are deleted by
// upstream's garbage collector.
//
// While the API server does not serve the kinds of one group yet, the loops of the other group run:
// a cluster without our CRDs still has its Deployments.
package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	clientfeatures "k8s.io/client-go/features"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"flyball.dev/apis/apps/v1alpha1"
)

// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,namespace=kube-system,verbs=get;create;update
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=authorization.k8s.io,resources=subjectaccessreviews,verbs=create

// Config is what Run needs.
type Config struct {
	// Client reaches the API server. Its rate limits are ignored: API Priority and Fairness limits
	// requests.
	Client *rest.Config
	// Kinds are the API versions whose Deployments and ReplicaSets are reconciled: apps/v1,
	// apps.flyball.dev/v1alpha1, or both. Empty means both. In a cluster whose
	// kube-controller-manager runs its own Deployment controller, set only the second.
	Kinds []schema.GroupVersion
	// LeaderElection lets one of several processes work at a time. The Lease is
	// LeaseNamespace/flyball-controllers; LeaseNamespace defaults to kube-system.
	LeaderElection bool
	LeaseNamespace string
	// MetricsAddress is where /metrics is served over HTTPS with a self-signed certificate, to
	// users whom the API server allows to get the path /metrics. HealthAddress is where /healthz
	// and /readyz are served over HTTP; ready means that the loops run, or that another process
	// leads. An empty address serves nothing.
	MetricsAddress, HealthAddress string
	// Ready, if not nil, is called once, when all loops run and their caches have synced.
	Ready func()
}

// Loop names one loop, the resources that it reads and those, or the parts of them, that it writes;
// apart from events, no other loop writes these.
type Loop struct {
	Name          string
	Reads, Writes []string
}

// Loops lists the loops for hack/loops, which draws them. Each runs once per API group.
func Loops() []Loop {
	return []Loop{
		{
			Name:   "replicaset",
			Reads:  []string{"replicasets", "pods"},
			Writes: []string{"replicasets/status", "pods (creation, deletion, ownerReferences)", "events"},
		},
		{
			Name:  "deployment",
			Reads: []string{"deployments", "replicasets", "pods (with strategy Recreate or rollback.onCrashLoop)"},
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

// Run runs all loops until ctx is cancelled.
func Run(ctx context.Context, cfg Config) error {
	if !clientfeatures.FeatureGates().Enabled(clientfeatures.AtomicFIFO) {
		return errors.New("starting the controllers: client-go's feature gate AtomicFIFO is off; turn it on: the controllers need it to tell how recent their caches are")
	}
	if len(cfg.Kinds) == 0 {
		cfg.Kinds = []schema.GroupVersion{appsv1.SchemeGroupVersion, v1alpha1.GroupVersion}
	}
	restConfig := rest.CopyConfig(cfg.Client)
	restConfig.QPS = -1
	restConfig.UserAgent = "flyball-controllers"
	// The API server has already warned the author of the object.
	restConfig.WarningHandlerWithContext = rest.NoWarnings{}

	ctrl.SetLogger(klog.Background()) // some of controller-runtime uses only this logger
	mgr, err := ctrl.NewManager(restConfig, options(ctx, cfg))
	if err != nil {
		return fmt.Errorf("setting up the controllers: %w", err)
	}
	events, err := typedcorev1.NewForConfigAndClient(restConfig, mgr.GetHTTPClient())
	if err != nil {
		return fmt.Errorf("setting up the controllers' Events: %w", err)
	}
	// The last Events are sent after ctx is cancelled.
	broadcaster := record.NewBroadcaster(record.WithContext(context.WithoutCancel(ctx)))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: events.Events("")})

	s := &starter{mgr: mgr, broadcaster: broadcaster, kinds: cfg.Kinds, ready: cfg.Ready}
	if err := errors.Join(mgr.AddHealthzCheck("ping", healthz.Ping), mgr.AddReadyzCheck("loops", s.checkReady)); err != nil {
		return fmt.Errorf("setting up the health checks: %w", err)
	}
	if err := mgr.Add(s); err != nil {
		return fmt.Errorf("setting up the loops: %w", err)
	}
	if err := mgr.Start(ctx); err != nil {
		return fmt.Errorf("running the controllers: %w", err)
	}
	return nil
}

func options(ctx context.Context, cfg Config) ctrl.Options {
	types := runtime.NewScheme()
	utilruntime.Must(scheme.AddToScheme(types))
	utilruntime.Must(v1alpha1.AddToScheme(types))
	return ctrl.Options{
		Scheme:      types,
		Logger:      klog.FromContext(ctx).V(1), // controller-runtime's messages are for developers
		BaseContext: func() context.Context { return ctx },
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject:         map[client.Object]cache.ByObject{&corev1.Pod{}: {Transform: slim}},
		},
		Controller: config.Controller{
			// Controller names must differ within a process; ours do so only within a manager.
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

// slim drops the fields of a Pod that no loop reads, because Pods take most of the cache's memory.
func slim(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	pod.ManagedFields = nil
	slimStatus := func(s corev1.ContainerStatus, _ int) corev1.ContainerStatus {
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
			ContainerStatuses:     lo.Map(pod.Status.ContainerStatuses, slimStatus),
			InitContainerStatuses: lo.Map(pod.Status.InitContainerStatuses, slimStatus),
		},
	}, nil
}
