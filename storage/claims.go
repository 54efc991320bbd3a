package storage

import (
	"context"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
)

// node is what all loops of a node have.
type node struct {
	name   string
	client client.Client
	driver csi.ControllerClient
	events record.EventRecorder
	// changed wakes the loop of capacities when the space on disk has changed.
	changed changed
}

// Reasons of Events, which are those of the sidecars.
const (
	reasonProvisioning       = "Provisioning"
	reasonProvisioned        = "ProvisioningSucceeded"
	reasonProvisioningFailed = "ProvisioningFailed"
	reasonSelected           = "NodeSelected"
	reasonResizing           = "Resizing"
	reasonResized            = "VolumeResizeSuccessful"
	reasonResizeFailed       = "VolumeResizeFailed"
	reasonFileSystemResize   = "FileSystemResizeRequired"
	reasonDeleteFailed       = "VolumeFailedDelete"
)

// claims gives the claims of this node their volumes, and makes these larger.
type claims struct{ node }

func (r *claims) add(loop *builder.Builder) error {
	return loop.For(&corev1.PersistentVolumeClaim{}, builder.WithPredicates(claimChanges())).Complete(r)
}

// claimChanges drops updates of what this loop writes itself: a claim that failed is to be
// reconciled when its back-off ends, and not when the failure is recorded.
func claimChanges() predicate.Predicate {
	planned := func(o client.Object) corev1.PersistentVolumeClaim {
		c := o.(*corev1.PersistentVolumeClaim)
		state := c.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
		if state != corev1.PersistentVolumeClaimNodeResizeInfeasible {
			state = ""
		}
		return corev1.PersistentVolumeClaim{Spec: c.Spec, Status: corev1.PersistentVolumeClaimStatus{
			Phase: c.Status.Phase, Capacity: c.Status.Capacity,
			AllocatedResourceStatuses: map[corev1.ResourceName]corev1.ClaimResourceStatus{corev1.ResourceStorage: state},
		}}
	}
	return predicate.Funcs{UpdateFunc: func(u event.UpdateEvent) bool {
		return u.ObjectOld.GetResourceVersion() == u.ObjectNew.GetResourceVersion() || // the safety net
			!equality.Semantic.DeepEqual(u.ObjectOld.GetAnnotations(), u.ObjectNew.GetAnnotations()) ||
			!equality.Semantic.DeepEqual(planned(u.ObjectOld), planned(u.ObjectNew))
	}}
}

// Reconcile implements reconcile.Reconciler.
func (r *claims) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	claim := &corev1.PersistentVolumeClaim{}
	if err := r.client.Get(ctx, request.NamespacedName, claim); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	state, source, err := r.observe(ctx, claim)
	if err != nil {
		// The source is not there yet, say. The node that is to have the volume tells the user.
		if claim.Annotations[annSelectedNode] == r.name {
			r.events.Event(claim, corev1.EventTypeWarning, reasonProvisioningFailed, err.Error())
		}
		return ctrl.Result{}, fmt.Errorf("observing claim %s: %w", request, err)
	}
	action := planClaim(state)
	switch action.Do {
	case choose:
		err = r.selectNode(ctx, claim, action.Node, action.Reason)
	case refuse:
		r.events.Event(claim, corev1.EventTypeWarning, reasonProvisioningFailed, action.Reason)
	case provision:
		err = r.provision(ctx, state, source)
	case expand:
		err = r.expand(ctx, claim, state.Volume, action.Size)
	case leave:
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("reconciling claim %s: %w", request, err)
	}
	return ctrl.Result{RequeueAfter: action.RequeueAfter}, nil
}

// observe reads what planClaim needs to know, and what the claim's volume is a copy of. It reads
// the source only for claims that may be this node's.
func (r *claims) observe(ctx context.Context, claim *corev1.PersistentVolumeClaim) (s claimState, source *csi.VolumeContentSource, err error) {
	s = claimState{Node: r.name, Claim: claim, Now: time.Now()}
	if name := claim.Spec.VolumeName; name != "" {
		s.Volume = &corev1.PersistentVolume{}
		if err := r.client.Get(ctx, client.ObjectKey{Name: name}, s.Volume); client.IgnoreNotFound(err) != nil {
			return s, nil, err
		}
		return s, nil, nil
	}
	if claim.Spec.StorageClassName == nil || !wanted(claim) {
		return s, nil, nil
	}
	s.Class = &storagev1.StorageClass{}
	if err := r.client.Get(ctx, client.ObjectKey{Name: *claim.Spec.StorageClassName}, s.Class); err != nil {
		return s, nil, fmt.Errorf("reading StorageClass %s: %w", *claim.Spec.StorageClassName, err)
	}
	if selected := claim.Annotations[annSelectedNode]; selected == "" || selected == r.name {
		s.SourceNode, source, err = r.source(ctx, claim)
	}
	return s, source, err
}

// selectNode sets, or with "" removes, the node that is to have a claim's volume. Without one the
// scheduler chooses again.
func (r *claims) selectNode(ctx context.Context, claim *corev1.PersistentVolumeClaim, name, reason string) error {
	after := claim.DeepCopy()
	if name == "" {
		delete(after.Annotations, annSelectedNode)
	} else {
		after.Annotations[annSelectedNode] = name
	}
	// Another node, or the scheduler, may have been faster: then the watch says so.
	err := r.client.Patch(ctx, after, client.MergeFromWithOptions(claim, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("selecting node %q: %w", name, err)
	}
	if name != "" {
		r.events.Eventf(claim, corev1.EventTypeNormal, reasonSelected, "Node %s is to have the volume: %s", name, reason)
	}
	return nil
}

// provision creates the volume and its PersistentVolume. Their names follow from the claim's UID, so
// that doing it twice gives one.
func (r *claims) provision(ctx context.Context, s claimState, source *csi.VolumeContentSource) error {
	if err := r.client.Get(ctx, client.ObjectKey{Name: volumeName(s.Claim)}, &corev1.PersistentVolume{}); err == nil {
		return nil // the PersistentVolume controller is about to bind it
	}
	r.events.Eventf(s.Claim, corev1.EventTypeNormal, reasonProvisioning, "Provisioning a volume for claim %q on node %s", client.ObjectKeyFromObject(s.Claim), r.name)
	request, err := newRequest(s, source)
	var created *csi.CreateVolumeResponse
	if err == nil {
		created, err = r.driver.CreateVolume(ctx, request)
	}
	if err != nil {
		r.events.Eventf(s.Claim, corev1.EventTypeWarning, reasonProvisioningFailed, "failed to provision volume with StorageClass %q: %v", s.Class.Name, err)
		if status.Code(err) != codes.ResourceExhausted {
			return fmt.Errorf("creating the volume: %w", err)
		}
		r.changed.set()
		return r.selectNode(ctx, s.Claim, "", "")
	}
	r.changed.set()
	volume := newVolume(s, created.GetVolume())
	if err := r.client.Create(ctx, volume); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating PersistentVolume %s: %w", volume.Name, err)
	}
	r.events.Eventf(s.Claim, corev1.EventTypeNormal, reasonProvisioned, "Successfully provisioned volume %s", volume.Name)
	return nil
}
