package storage

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// expand makes a volume larger and records each step in the status of its claim, which users and
// the kubelet watch.
func (r *claims) expand(ctx context.Context, claim *corev1.PersistentVolumeClaim, volume *corev1.PersistentVolume, size resource.Quantity) error {
	if err := r.progress(ctx, claim, size, corev1.PersistentVolumeClaimControllerResizeInProgress, condition(corev1.PersistentVolumeClaimResizing, "")); err != nil {
		return err
	}
	r.events.Eventf(claim, corev1.EventTypeNormal, reasonResizing, "Resizing volume %s to %s", volume.Name, size.String())
	expanded, err := r.driver.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId: volume.Spec.CSI.VolumeHandle, CapacityRange: &csi.CapacityRange{RequiredBytes: size.Value()},
	})
	r.changed.set()
	if err != nil {
		r.events.Eventf(claim, corev1.EventTypeWarning, reasonResizeFailed, "resizing volume %s to %s: %v", volume.Name, size.String(), err)
		state := corev1.PersistentVolumeClaimControllerResizeInProgress
		if infeasible(status.Code(err)) {
			state = corev1.PersistentVolumeClaimControllerResizeInfeasible
		}
		if err := r.progress(ctx, claim, size, state, condition(corev1.PersistentVolumeClaimControllerResizeError, err.Error())); err != nil {
			return err
		}
		return fmt.Errorf("expanding volume %s: %w", volume.Name, err)
	}
	size = *resource.NewQuantity(expanded.GetCapacityBytes(), resource.BinarySI)
	if size.Cmp(volume.Spec.Capacity[corev1.ResourceStorage]) > 0 {
		larger := volume.DeepCopy()
		larger.Spec.Capacity[corev1.ResourceStorage] = size
		if err := r.client.Patch(ctx, larger, client.MergeFrom(volume)); err != nil {
			return fmt.Errorf("recording the size of volume %s: %w", volume.Name, err)
		}
	}
	if expanded.GetNodeExpansionRequired() {
		r.events.Event(claim, corev1.EventTypeNormal, reasonFileSystemResize, "Require file system resize of volume on node")
		return r.progress(ctx, claim, size, corev1.PersistentVolumeClaimNodeResizePending,
			condition(corev1.PersistentVolumeClaimFileSystemResizePending, "The kubelet makes the file system larger while a Pod has the volume, or when the next one gets it"))
	}
	if err := r.progress(ctx, claim, size, ""); err != nil {
		return err
	}
	r.events.Event(claim, corev1.EventTypeNormal, reasonResized, "Resize volume succeeded")
	return nil
}

// infeasible reports whether trying again would fail again, so that the user has to act.
func infeasible(c codes.Code) bool {
	return slices.Contains([]codes.Code{codes.InvalidArgument, codes.OutOfRange, codes.NotFound, codes.ResourceExhausted}, c)
}

func condition(kind corev1.PersistentVolumeClaimConditionType, message string) corev1.PersistentVolumeClaimCondition {
	return corev1.PersistentVolumeClaimCondition{Type: kind, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(), Message: message}
}

// resizeConditions are the conditions of an expansion, of which only the latest stays.
var resizeConditions = []corev1.PersistentVolumeClaimConditionType{
	corev1.PersistentVolumeClaimResizing, corev1.PersistentVolumeClaimFileSystemResizePending,
	corev1.PersistentVolumeClaimControllerResizeError, corev1.PersistentVolumeClaimNodeResizeError,
}

// progress records how far the expansion of claim to size is. State "" means that it is done. It
// changes claim.
func (r *claims) progress(ctx context.Context, claim *corev1.PersistentVolumeClaim, size resource.Quantity, state corev1.ClaimResourceStatus, now ...corev1.PersistentVolumeClaimCondition) error {
	before := claim.DeepCopy()
	s := &claim.Status
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c corev1.PersistentVolumeClaimCondition) bool {
		return slices.Contains(resizeConditions, c.Type)
	})
	s.Conditions = append(s.Conditions, now...)
	if s.AllocatedResources == nil {
		s.AllocatedResources = corev1.ResourceList{}
	}
	s.AllocatedResources[corev1.ResourceStorage] = size
	if state == "" {
		delete(s.AllocatedResourceStatuses, corev1.ResourceStorage)
		s.Capacity[corev1.ResourceStorage] = size
	} else {
		if s.AllocatedResourceStatuses == nil {
			s.AllocatedResourceStatuses = map[corev1.ResourceName]corev1.ClaimResourceStatus{}
		}
		s.AllocatedResourceStatuses[corev1.ResourceStorage] = state
	}
	// The kubelet writes here too.
	if err := r.client.Status().Patch(ctx, claim, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})); err != nil {
		return fmt.Errorf("recording the expansion: %w", err)
	}
	return nil
}
