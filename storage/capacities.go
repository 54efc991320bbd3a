package storage

import (
	"context"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// capacityNamespace has the CSIStorageCapacities of all nodes.
const capacityNamespace = metav1.NamespaceSystem

// capacityInterval is how often the space on disk is read again: images and other files use it too.
const capacityInterval = time.Minute

// capacityLabels are those of the CSIStorageCapacities of a node, as the sidecar has them. The name
// of a long node is cut: the label selects, and the topology says which node it is.
func capacityLabels(node string) map[string]string {
	return map[string]string{
		"csi.storage.k8s.io/drivername": driverName,
		"csi.storage.k8s.io/managed-by": node[:min(len(node), validation.LabelValueMaxLength)],
	}
}

// capacities publishes for each StorageClass of ours how much fits on this node.
type capacities struct{ node }

// changed wakes the loop of capacities.
type changed chan event.GenericEvent

func newChanged() changed { return make(changed, 1) }

func (c changed) set() {
	select {
	case c <- event.GenericEvent{Object: &corev1.Node{}}:
	default:
	}
}

func (r *capacities) add(loop *builder.Builder) error {
	all := handler.EnqueueRequestsFromMapFunc(r.classes)
	ours := predicate.NewPredicateFuncs(func(o client.Object) bool { return o.(*storagev1.StorageClass).Provisioner == driverName })
	recreated := predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool { return u.ObjectOld.GetUID() != u.ObjectNew.GetUID() }}
	ofClass := func(_ context.Context, o client.Object) []ctrl.Request {
		return []ctrl.Request{{NamespacedName: client.ObjectKey{Name: o.(*storagev1.CSIStorageCapacity).StorageClassName}}}
	}
	return loop.
		For(&storagev1.StorageClass{}, builder.WithPredicates(ours)).
		Watches(&storagev1.CSIStorageCapacity{}, handler.EnqueueRequestsFromMapFunc(ofClass)).
		Watches(&corev1.Node{}, all, builder.WithPredicates(recreated)).
		WatchesRawSource(source.Channel(r.changed, all)).
		Complete(r)
}

func (r *capacities) classes(ctx context.Context, _ client.Object) (requests []ctrl.Request) {
	list := &storagev1.StorageClassList{}
	if err := r.client.List(ctx, list); err != nil {
		return nil // the cache is not filled yet, and then every class is reconciled
	}
	for _, c := range list.Items {
		if c.Provisioner == driverName {
			requests = append(requests, ctrl.Request{NamespacedName: client.ObjectKey{Name: c.Name}})
		}
	}
	return requests
}

// Reconcile implements reconcile.Reconciler.
func (r *capacities) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	capacity := &storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Namespace: capacityNamespace, Name: capacityName(r.name, request.Name)}}
	class, owner := &storagev1.StorageClass{}, &corev1.Node{}
	err := r.client.Get(ctx, request.NamespacedName, class)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return ctrl.Result{}, fmt.Errorf("reading StorageClass %s: %w", request.Name, err)
	case err != nil || class.DeletionTimestamp != nil:
		return ctrl.Result{}, client.IgnoreNotFound(r.client.Delete(ctx, capacity))
	}
	if err := r.client.Get(ctx, client.ObjectKey{Name: r.name}, owner); err != nil {
		return ctrl.Result{}, fmt.Errorf("reading Node %s: %w", r.name, err)
	}
	available, err := r.driver.GetCapacity(ctx, &csi.GetCapacityRequest{
		Parameters: class.Parameters, AccessibleTopology: &csi.Topology{Segments: map[string]string{topologyKey: r.name}},
	})
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reading how much space is left for StorageClass %s: %w", class.Name, err)
	}
	_, err = controllerutil.CreateOrUpdate(ctx, r.client, capacity, func() error {
		capacity.Labels, capacity.StorageClassName = capacityLabels(r.name), class.Name
		// It goes with the Node, which may have been created again.
		capacity.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: owner.Name, UID: owner.UID}}
		capacity.NodeTopology = &metav1.LabelSelector{MatchLabels: map[string]string{topologyKey: r.name}}
		keep(&capacity.Capacity, available.GetAvailableCapacity())
		if largest := available.GetMaximumVolumeSize(); largest != nil {
			keep(&capacity.MaximumVolumeSize, largest.GetValue())
		}
		return nil
	})
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("publishing how much space is left for StorageClass %s: %w", class.Name, err)
	}
	return ctrl.Result{RequeueAfter: capacityInterval}, nil
}

// keep sets a quantity, and leaves its form alone if it has the value.
func keep(q **resource.Quantity, bytes int64) {
	if now := resource.NewQuantity(bytes, resource.BinarySI); *q == nil || !equality.Semantic.DeepEqual(*q, now) {
		*q = now
	}
}

// capacityName is the same each time, so that there is one object per node and class.
func capacityName(node, class string) string {
	h := fnv.New64a()
	_, _ = h.Write([]byte(node + "/" + class))
	return fmt.Sprintf("csisc-%x", h.Sum64())
}
