package storage

import (
	"context"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	corev1 "k8s.io/api/core/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// released deletes the volumes of this node that no claim has any more, if their policy says so.
type released struct{ node }

func (r *released) add(loop *builder.Builder) error {
	here := predicate.NewPredicateFuncs(func(o client.Object) bool { return ownedBy(o.(*corev1.PersistentVolume), r.name) })
	return loop.For(&corev1.PersistentVolume{}, builder.WithPredicates(here)).Complete(r)
}

// Reconcile implements reconcile.Reconciler.
func (r *released) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	volume := &corev1.PersistentVolume{}
	if err := r.client.Get(ctx, request.NamespacedName, volume); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	var err error
	switch finalized, wanted := planVolume(volume); {
	case wanted == deleted:
		err = r.delete(ctx, volume)
	case finalized != (wanted == protected):
		err = r.finalize(ctx, volume, wanted == protected)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reconciling PersistentVolume %s: %w", request.Name, err)
	}
	return ctrl.Result{}, nil
}

// fate is what is to become of a volume.
type fate string

const (
	protected fate = "protected" // its PersistentVolume stays until the data is deleted
	retained  fate = "retained"  // the data outlives it
	deleted   fate = "deleted"
)

// planVolume decides about a volume. It also says whether its PersistentVolume has the finalizer.
func planVolume(volume *corev1.PersistentVolume) (finalized bool, wanted fate) {
	finalized = controllerutil.ContainsFinalizer(volume, finalizer)
	ending := volume.DeletionTimestamp != nil
	switch {
	case volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete:
		return finalized, retained
	case volume.Status.Phase == corev1.VolumeReleased && (!ending || finalized):
		return finalized, deleted
	case volume.Status.Phase == corev1.VolumeBound && !ending:
		return finalized, protected
	case volume.Status.Phase == corev1.VolumeBound && finalized, finalized && !ending:
		return finalized, protected // as it is
	}
	return finalized, retained
}

func (r *released) delete(ctx context.Context, volume *corev1.PersistentVolume) error {
	if _, err := r.driver.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volume.Spec.CSI.VolumeHandle}); err != nil {
		r.events.Event(volume, corev1.EventTypeWarning, reasonDeleteFailed, err.Error())
		return fmt.Errorf("deleting the volume: %w", err)
	}
	r.changed.set()
	if err := r.finalize(ctx, volume, false); err != nil {
		return err
	}
	return client.IgnoreNotFound(r.client.Delete(ctx, volume, client.Preconditions{UID: &volume.UID}))
}

// finalize adds or removes the finalizer. Others have finalizers too, hence the lock.
func (r *released) finalize(ctx context.Context, volume *corev1.PersistentVolume, has bool) error {
	after := volume.DeepCopy()
	if has {
		controllerutil.AddFinalizer(after, finalizer)
	} else {
		controllerutil.RemoveFinalizer(after, finalizer)
	}
	err := r.client.Patch(ctx, after, client.MergeFromWithOptions(volume, client.MergeFromWithOptimisticLock{}))
	return client.IgnoreNotFound(err)
}
