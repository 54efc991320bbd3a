// Package loop is what the loops share: the course of one look at one object, whom a change concerns, who may adopt, and
// what is counted. What is planned and done is each loop's own.
package loop

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
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
	"flyball.dev/controllers/internal/owner"
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

// Loop reconciles the objects of one kind.
type Loop[T client.Object] struct {
	Kind kinds.Kind[T]
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

// New makes the loop of a kind, whose actions are what says in words. It writes objects of that kind and of others, whose
// caches show when a write has arrived.
func New[T client.Object](manager Manager, kind kinds.Kind[T], what func(Action) string, others map[schema.GroupResource]client.Object) (*Loop[T], error) {
	caches := map[schema.GroupResource]writes.Cache{}
	others[kind.Resource] = kind.New()
	for resource, object := range others {
		informer, err := manager.GetCache().GetInformer(context.Background(), object, cache.BlockUntilSynced(false))
		if err != nil {
			return nil, fmt.Errorf("watching %s: %w", resource, err)
		}
		caches[resource] = informer.(toolscache.SharedIndexInformer).GetStore()
	}
	name := strings.ToLower(kind.GroupVersionKind.Kind)
	return &Loop[T]{
		Kind: kind, Client: manager.GetClient(), Live: manager.GetAPIReader(), Writes: writes.New(caches),
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
func (l *Loop[T]) Watch(manager ctrl.Manager) *builder.Builder {
	return ctrl.NewControllerManagedBy(manager).
		Named(l.name + "." + l.Kind.GroupVersionKind.Group).
		WithOptions(controller.Options{
			RateLimiter: workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, 15*time.Second),
		}).
		For(l.Kind.New())
}

// Reconcile is one look at one object.
func (l *Loop[T]) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	if !l.Writes.CaughtUp(request.NamespacedName) {
		return ctrl.Result{RequeueAfter: 10 * time.Second}, nil // a safety net: the event of the missing write comes first
	}
	object, options, err := l.Kind.GetOptions(ctx, l.Client, request.NamespacedName)
	if apierrors.IsNotFound(err) {
		l.Writes.Forget(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading %s %s: %w", l.Kind.GroupVersionKind.Kind, request, err)
	}
	report, err := l.Look(ctx, object, options)
	select {
	case <-ctx.Done():
		return ctrl.Result{}, nil // the end of the process is no failure
	default:
	}
	switch {
	case errors.Is(err, ErrStale):
		return ctrl.Result{RequeueAfter: time.Second}, nil // a safety net: the event of the change comes first
	case report == nil:
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: report.Next}, errors.Join(err, l.report(ctx, report, options.Status))
}

// report writes the status, if it changed.
func (l *Loop[T]) report(ctx context.Context, report *Report[T], was kinds.Status) error {
	is := l.Kind.Keeps(report.Kept)
	if equality.Semantic.DeepEqual(report.Before, report.After) && equality.Semantic.DeepEqual(was, is) {
		return nil
	}
	stored, err := l.Kind.PatchStatus(ctx, l.Client, report.Before, report.After, was, is)
	switch {
	case err == nil:
		l.Writes.Wrote(report.Before, l.Kind.Resource, stored)
	case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // the event of the other write brings us back
	default:
		return fmt.Errorf("writing the status of %s %s: %w", l.Kind.GroupVersionKind.Kind, client.ObjectKeyFromObject(report.Before), err)
	}
	return nil
}

// Concerns maps an object to those whom its change concerns: its controller, or all that might adopt it.
func (l *Loop[T]) Concerns(selectorOf func(T) *metav1.LabelSelector) handler.MapFunc {
	return func(ctx context.Context, object client.Object) []reconcile.Request {
		if ref := metav1.GetControllerOfNoCopy(object); ref != nil {
			if !owner.Is(ref, l.Kind.GroupVersionKind) {
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

// MayAdopt asks the API server, not a cache, whether an owner may still adopt. A cache that has not seen the owner's
// deletion would let it take back what the garbage collector has just orphaned
// (https://github.com/kubernetes/kubernetes/issues/42639). The error is ErrStale if it may not.
func (l *Loop[T]) MayAdopt(ctx context.Context, owner T) error {
	live, err := l.Kind.Get(ctx, l.Live, client.ObjectKeyFromObject(owner))
	switch {
	case apierrors.IsNotFound(err), err == nil && (live.GetUID() != owner.GetUID() || live.GetDeletionTimestamp() != nil):
		return ErrStale
	case err != nil:
		return fmt.Errorf("asking whether %s/%s may adopt: %w", owner.GetNamespace(), owner.GetName(), err)
	}
	return nil
}

// Action is one step of a plan: a small value of a type of its own, with a reason in words.
type Action interface{ Why() string }

// Reason is embedded by all actions.
type Reason string

// Why implements Action.
func (r Reason) Why() string { return string(r) }

// Act carries actions out, in order, and stops at the first error.
func (l *Loop[T]) Act(ctx context.Context, actions []Action, do func(Action) error) error {
	for _, action := range actions {
		klog.FromContext(ctx).V(2).Info("Acting", "action", l.what(action), "reason", action.Why())
		err, result := do(action), "done"
		if err != nil {
			result = "failed"
		}
		name := fmt.Sprintf("%T", action)
		l.total.WithLabelValues(l.name, l.Kind.GroupVersionKind.Group, strings.ToLower(name[strings.LastIndex(name, ".")+1:]), result).Inc()
		if err != nil {
			return err
		}
	}
	return nil
}
