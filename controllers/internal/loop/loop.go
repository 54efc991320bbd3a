// Package loop is what the loops share: the course of one look at one object, whom a change concerns, who owns what, how
// what is owned is written, and what is counted. What else is planned and done is each loop's own.
package loop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/samber/lo"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"flyball.dev/controllers/internal/kinds"
	"flyball.dev/controllers/internal/writes"
)

var (
	// ErrStale says that something is no longer as it was observed, so that the rest of a plan means nothing.
	ErrStale = errors.New("something changed after it was observed")
	// ErrNamespaceEnds says that a namespace is being deleted: nothing can be created there, and nothing needs to be.
	ErrNamespaceEnds = errors.New("the namespace is being deleted")
)

// Manager is what loops are started on.
type Manager struct {
	ctrl.Manager
	Events record.EventBroadcaster
}

// Loop reconciles the objects of one kind, each of which controls objects of another.
type Loop[T, C client.Object] struct {
	Kind     kinds.Kind[T]
	Children kinds.Kind[C]
	// Client reads from the cache, Live from the API server.
	Client client.Client
	Live   client.Reader
	Events record.EventRecorder
	Writes *writes.Tracker
	// Look is the loop's own part of Reconcile: observe, plan, act. It returns what is to be reported, also beside an
	// error; nil if nothing is.
	Look func(ctx context.Context, object T, options kinds.Options) (*Report[T], error)

	name  string
	what  func(Action) string
	total *prometheus.CounterVec
}

// Report is what comes out of a look.
type Report[T client.Object] struct {
	// Before is the object as last read or written, After the same with its new status, Kept what apps/v1 lacks of that.
	Before, After T
	Kept          kinds.Status
	// Next is how long it takes until the mere passing of time matters; 0 if it does not.
	Next time.Duration
}

// New makes the loop of a kind and of what its objects control; what says an action in words.
func New[T, C client.Object](manager Manager, kind kinds.Kind[T], children kinds.Kind[C], what func(Action) string) (*Loop[T, C], error) {
	caches := map[schema.GroupResource]writes.Cache{} // they show when a write has arrived
	for resource, object := range map[schema.GroupResource]client.Object{kind.Resource: kind.New(), children.Resource: children.New()} {
		informer, err := manager.GetCache().GetInformer(context.Background(), object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watching %s: %w", resource, err)
		}
		caches[resource] = informer.(toolscache.SharedIndexInformer).GetStore()
	}
	name := strings.ToLower(kind.GroupVersionKind.Kind)
	return &Loop[T, C]{
		Kind: kind, Children: children, Client: manager.GetClient(), Live: manager.GetAPIReader(), Writes: writes.New(caches),
		// The source that Events name is upstream's name, because tools know it.
		Events: manager.Events.NewRecorder(manager.GetScheme(), corev1.EventSource{Component: name + "-controller"}),
		name:   name, what: what, total: counter(metrics.Registry),
	}, nil
}

// counter is flyball_controller_actions_total, which several loops, and several managers in one process, share.
func counter(registry prometheus.Registerer) *prometheus.CounterVec {
	total := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "flyball_controller_actions_total",
		Help: "Planned actions that were carried out, by loop, API group, action and result (done or failed).",
	}, []string{"loop", "group", "action", "result"})
	if registered, ok := errors.AsType[prometheus.AlreadyRegisteredError](registry.Register(total)); ok {
		return registered.ExistingCollector.(*prometheus.CounterVec)
	}
	return total
}

// Watch begins the registration of the loop: it looks at an object of its kind when that changes. A failing object is
// tried again soon, and never less often than every 15 seconds: what it fails on, a quota say, may have gone without
// anything telling us.
func (l *Loop[T, C]) Watch(manager ctrl.Manager) *builder.Builder {
	return ctrl.NewControllerManagedBy(manager).
		Named(l.name + "." + l.Kind.GroupVersionKind.Group).
		WithOptions(controller.Options{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, 15*time.Second),
		}).
		For(l.Kind.New())
}

// grace is how long a look may still take when the process ends.
const grace = 500 * time.Millisecond

// Reconcile is one look at one object. One that is under way when the process ends comes to its own end, if it does so
// soon: nobody would know what became of a request that is broken off.
func (l *Loop[T, C]) Reconcile(process context.Context, request ctrl.Request) (ctrl.Result, error) {
	if process.Err() != nil {
		return ctrl.Result{}, nil // what is left in the queue is for the next process
	}
	ctx, breakOff := context.WithCancel(context.WithoutCancel(process))
	defer breakOff()
	defer context.AfterFunc(process, func() { time.AfterFunc(grace, breakOff) })()
	if !l.Writes.CaughtUp(request.NamespacedName) {
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil // a safety net: the event of the missing write comes first
	}
	object, options, err := l.Kind.Get(ctx, l.Client, request.NamespacedName)
	if apierrors.IsNotFound(err) {
		l.Writes.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading %s %s: %w", l.Kind.GroupVersionKind.Kind, request, err)
	}
	report, err := l.Look(ctx, object, options)
	if report != nil && !errors.Is(err, ErrStale) {
		err = errors.Join(err, l.report(ctx, report, options.Status))
	}
	switch {
	case ctx.Err() != nil:
		return ctrl.Result{}, nil // the end of the process is no failure
	case errors.Is(err, ErrStale):
		return ctrl.Result{RequeueAfter: time.Second}, nil // a safety net: the event of the change comes first
	case report == nil:
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: report.Next}, err
}

// report writes the status, if it changed.
func (l *Loop[T, C]) report(ctx context.Context, report *Report[T], was kinds.Status) error {
	if equality.Semantic.DeepEqual(l.Kind.Write(report.Before, was), l.Kind.Write(report.After, report.Kept)) {
		return nil
	}
	stored, err := l.Kind.PatchStatus(ctx, l.Client, report.Before, report.After, was, report.Kept)
	switch {
	case err == nil:
		l.Writes.Wrote(report.Before, l.Kind.Resource, stored)
	case !errors.Is(OrStale(err), ErrStale): // the event of the other write brings us back
		return fmt.Errorf("writing the status of %s %s: %w", l.Kind.GroupVersionKind.Kind, client.ObjectKeyFromObject(report.Before), err)
	}
	return nil
}

// Concerns maps an object to those whom its change concerns: its controller, or all that might adopt it.
func (l *Loop[T, C]) Concerns(selectorOf func(T) *metav1.LabelSelector) handler.MapFunc {
	return func(ctx context.Context, object client.Object) []reconcile.Request {
		if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
			if !IsOf(ref, l.Kind.GroupVersionKind) {
				return nil
			}
			return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: object.GetNamespace(), Name: ref.Name}}}
		}
		if object.GetDeletionTimestamp() != nil || len(object.GetLabels()) == 0 {
			return nil
		}
		all, err := l.Kind.List(ctx, l.Client, client.InNamespace(object.GetNamespace()), client.UnsafeDisableDeepCopy)
		if err != nil {
			return nil
		}
		var requests []reconcile.Request
		for _, candidate := range all {
			selector, err := metav1.LabelSelectorAsSelector(selectorOf(candidate))
			if err == nil && !selector.Empty() && selector.Matches(labels.Set(object.GetLabels())) {
				requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(candidate)})
			}
		}
		return requests
	}
}

// mayAdopt asks the API server, not a cache, whether an owner may still adopt. A cache that has not seen the owner's
// deletion would let it take back what the garbage collector has just orphaned
// (https://github.com/kubernetes/kubernetes/issues/42639). The error is ErrStale if it may not.
func (l *Loop[T, C]) mayAdopt(ctx context.Context, owner T) error {
	live, _, err := l.Kind.Get(ctx, l.Live, client.ObjectKeyFromObject(owner))
	switch {
	case apierrors.IsNotFound(err), err == nil && (live.GetUID() != owner.GetUID() || live.GetDeletionTimestamp() != nil):
		return ErrStale
	case err != nil:
		return fmt.Errorf("asking whether %s/%s may adopt: %w", owner.GetNamespace(), owner.GetName(), err)
	}
	return nil
}

// Act carries the actions for an owner out, in order, and stops at the first error. do is for those that are not Adopt or
// Release.
func (l *Loop[T, C]) Act(ctx context.Context, owner T, actions []Action, do func(Action) error) error {
	mayAdopt := sync.OnceValue(func() error { return l.mayAdopt(ctx, owner) })
	for _, action := range actions {
		klog.FromContext(ctx).V(2).Info("Acting", "action", l.what(action), "reason", action.Why())
		var err error
		switch a := action.(type) {
		case Adopt:
			if err = mayAdopt(); err == nil {
				err = l.handOver(ctx, owner, a.Object.(C), *metav1.NewControllerRef(owner, l.Kind.GroupVersionKind))
			}
		case Release:
			err = l.handOver(ctx, owner, a.Object.(C))
		default:
			err = do(action)
		}
		result := lo.Ternary(err == nil, "done", "failed")
		l.total.WithLabelValues(l.name, l.Kind.GroupVersionKind.Group, strings.ToLower(typeName(action)), result).Inc()
		if err != nil {
			return err
		}
	}
	return nil
}

// handOver replaces what an object says of its owner, unless the object changed since it was read. An action that follows
// goes on from the resourceVersion that this gives.
func (l *Loop[T, C]) handOver(ctx context.Context, owner T, object C, refs ...metav1.OwnerReference) error {
	others := lo.Reject(object.GetOwnerReferences(), func(ref metav1.OwnerReference, _ int) bool { return ref.UID == owner.GetUID() })
	after := object.DeepCopyObject().(C)
	after.SetOwnerReferences(append(others, refs...))
	stored, err := l.Update(ctx, owner, object, after)
	if err != nil {
		return OrStale(fmt.Errorf("changing the controller of %s %s: %w", l.Children.GroupVersionKind.Kind, object.GetName(), err))
	}
	object.SetResourceVersion(stored.GetResourceVersion())
	return nil
}

// Update makes an object that owner controls differ from before as after does, unless it changed meanwhile.
func (l *Loop[T, C]) Update(ctx context.Context, owner T, before, after C) (C, error) {
	stored, err := l.Children.Patch(ctx, l.Client, before, after)
	if err == nil {
		l.Writes.Wrote(owner, l.Children.Resource, stored)
	}
	return stored, err
}

// Create creates an object that owner controls. The error is ErrNamespaceEnds where that makes no sense any more.
func (l *Loop[T, C]) Create(ctx context.Context, owner T, object C) (C, error) {
	stored, err := l.Children.Create(ctx, l.Client, object)
	switch {
	case err == nil:
		l.Writes.Wrote(owner, l.Children.Resource, stored)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		err = ErrNamespaceEnds
	}
	return stored, err
}

// OrStale is ErrStale in place of an error that says that an object changed or is gone.
func OrStale(err error) error {
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return ErrStale
	}
	return err
}
