package storage

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/kubernetes-csi/csi-lib-utils/accessmodes"
	snapshotv1 "github.com/kubernetes-csi/external-snapshotter/client/v8/apis/volumesnapshot/v1"
	"github.com/kubernetes-csi/external-snapshotter/v8/pkg/utils"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// finalizer keeps a PersistentVolume until its data is deleted. Tools know the sidecar's.
const finalizer = "external-provisioner.volume.kubernetes.io/finalizer"

// The parameters of a StorageClass with this prefix are for provisioners, not for drivers.
const (
	parameterPrefix = "csi.storage.k8s.io/"
	parameterFSType = parameterPrefix + "fstype"
)

// annModeChange on a VolumeSnapshotContent is the administrator's consent to read a file system as a
// device, or the reverse.
const annModeChange = "snapshot.storage.kubernetes.io/allow-volume-mode-change"

func volumeName(claim *corev1.PersistentVolumeClaim) string { return "pvc-" + string(claim.UID) }

// newRequest asks the driver for the volume of a claim.
func newRequest(s claimState, source *csi.VolumeContentSource) (*csi.CreateVolumeRequest, error) {
	size := s.Claim.Spec.Resources.Requests[corev1.ResourceStorage]
	here := &csi.Topology{Segments: map[string]string{topologyKey: s.Node}}
	request := &csi.CreateVolumeRequest{
		Name:                      volumeName(s.Claim),
		CapacityRange:             &csi.CapacityRange{RequiredBytes: size.Value()},
		VolumeContentSource:       source,
		Parameters:                map[string]string{parameterPrefix + "pvc/name": s.Claim.Name, parameterPrefix + "pvc/namespace": s.Claim.Namespace},
		AccessibilityRequirements: &csi.TopologyRequirement{Requisite: []*csi.Topology{here}, Preferred: []*csi.Topology{here}},
	}
	for name, value := range s.Class.Parameters {
		if !strings.HasPrefix(name, parameterPrefix) {
			request.Parameters[name] = value
		}
	}
	for _, wanted := range s.Claim.Spec.AccessModes {
		mode, err := accessmodes.ToCSIAccessMode([]corev1.PersistentVolumeAccessMode{wanted}, true)
		if err != nil {
			return nil, fmt.Errorf("reading the access modes: %w", err)
		}
		capability := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{Mode: mode}}
		if block(s.Claim.Spec.VolumeMode) {
			capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
		} else {
			capability.AccessType = &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{
				FsType: s.Class.Parameters[parameterFSType], MountFlags: s.Class.MountOptions,
			}}
		}
		request.VolumeCapabilities = append(request.VolumeCapabilities, capability)
	}
	return request, nil
}

func block(mode *corev1.PersistentVolumeMode) bool {
	return ptr.Deref(mode, corev1.PersistentVolumeFilesystem) == corev1.PersistentVolumeBlock
}

// newVolume is the PersistentVolume of a volume that the driver has created.
func newVolume(s claimState, created *csi.Volume) *corev1.PersistentVolume {
	source := &corev1.CSIPersistentVolumeSource{
		Driver: driverName, VolumeHandle: created.GetVolumeId(), VolumeAttributes: created.GetVolumeContext(),
	}
	if !block(s.Claim.Spec.VolumeMode) {
		source.FSType = s.Class.Parameters[parameterFSType]
	}
	volume := &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{Name: volumeName(s.Claim), Annotations: map[string]string{annProvisionedBy: driverName}},
		Spec: corev1.PersistentVolumeSpec{
			PersistentVolumeSource:        corev1.PersistentVolumeSource{CSI: source},
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(created.GetCapacityBytes(), resource.BinarySI)},
			AccessModes:                   s.Claim.Spec.AccessModes,
			VolumeMode:                    s.Claim.Spec.VolumeMode,
			MountOptions:                  s.Class.MountOptions,
			StorageClassName:              s.Class.Name,
			PersistentVolumeReclaimPolicy: ptr.Deref(s.Class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: kindClaim,
				Namespace: s.Claim.Namespace, Name: s.Claim.Name, UID: s.Claim.UID, ResourceVersion: s.Claim.ResourceVersion,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: topologyKey, Operator: corev1.NodeSelectorOpIn, Values: []string{s.Node}}},
			}}}},
		},
	}
	if volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete {
		volume.Finalizers = []string{finalizer}
	}
	return volume
}

// source finds what the volume of a claim is a copy of, and the node that has it; none if the claim
// names none.
func (r *claims) source(ctx context.Context, claim *corev1.PersistentVolumeClaim) (onNode string, source *csi.VolumeContentSource, err error) {
	switch from := claim.Spec.DataSourceRef; {
	case from == nil:
		return "", nil, nil
	case from.Kind == kindClaim:
		return r.volumeSource(ctx, claim, from.Name)
	default:
		return r.snapshotSource(ctx, claim, from.Name)
	}
}

func (r *claims) volumeSource(ctx context.Context, claim *corev1.PersistentVolumeClaim, name string) (string, *csi.VolumeContentSource, error) {
	original, volume := &corev1.PersistentVolumeClaim{}, &corev1.PersistentVolume{}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: claim.Namespace, Name: name}, original); err != nil {
		return "", nil, fmt.Errorf("reading the claim to copy: %w", err)
	}
	if original.Status.Phase != corev1.ClaimBound || original.DeletionTimestamp != nil {
		return "", nil, fmt.Errorf("claim %s cannot be copied: it is not bound, or is being deleted", name)
	}
	if err := r.client.Get(ctx, client.ObjectKey{Name: original.Spec.VolumeName}, volume); err != nil {
		return "", nil, fmt.Errorf("reading the volume to copy: %w", err)
	}
	wanted, has := claim.Spec.Resources.Requests[corev1.ResourceStorage], volume.Spec.Capacity[corev1.ResourceStorage]
	switch {
	case volume.Spec.CSI == nil || volume.Spec.CSI.Driver != driverName:
		return "", nil, fmt.Errorf("claim %s cannot be copied: its volume is not one of %s", name, driverName)
	case block(claim.Spec.VolumeMode) != block(volume.Spec.VolumeMode):
		return "", nil, fmt.Errorf("claim %s cannot be copied: only one of both has a file system", name)
	case wanted.Cmp(has) < 0:
		return "", nil, fmt.Errorf("the copy of claim %s must have at least its size, %s", name, has.String())
	}
	return nodeOf(volume), &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: volume.Spec.CSI.VolumeHandle},
	}}, nil
}

func (r *claims) snapshotSource(ctx context.Context, claim *corev1.PersistentVolumeClaim, name string) (string, *csi.VolumeContentSource, error) {
	snapshot, content := &snapshotv1.VolumeSnapshot{}, &snapshotv1.VolumeSnapshotContent{}
	if err := r.client.Get(ctx, client.ObjectKey{Namespace: claim.Namespace, Name: name}, snapshot); err != nil {
		return "", nil, fmt.Errorf("reading VolumeSnapshot %s: %w", name, err)
	}
	if snapshot.DeletionTimestamp != nil || !utils.IsSnapshotReady(snapshot) || !utils.IsBoundVolumeSnapshotContentNameSet(snapshot) {
		return "", nil, fmt.Errorf("snapshot %s is not Ready, or is being deleted", name)
	}
	if err := r.client.Get(ctx, client.ObjectKey{Name: *snapshot.Status.BoundVolumeSnapshotContentName}, content); err != nil {
		return "", nil, fmt.Errorf("reading the content of VolumeSnapshot %s: %w", name, err)
	}
	wanted := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	switch mode := content.Spec.SourceVolumeMode; {
	case content.Spec.VolumeSnapshotRef.UID != snapshot.UID:
		return "", nil, fmt.Errorf("the content of snapshot %s belongs to another one", name)
	case content.Spec.Driver != driverName:
		return "", nil, fmt.Errorf("snapshot %s is not one of %s", name, driverName)
	case content.Status == nil || content.Status.SnapshotHandle == nil:
		return "", nil, errors.New("the handle of the snapshot is not known yet")
	case mode != nil && block(mode) != block(claim.Spec.VolumeMode) && content.Annotations[annModeChange] != "true":
		return "", nil, fmt.Errorf("snapshot %s is of a volume of mode %s, and its content has no annotation that allows a change", name, *mode)
	case snapshot.Status.RestoreSize != nil && wanted.Cmp(*snapshot.Status.RestoreSize) < 0:
		return "", nil, fmt.Errorf("the volume must have at least the size of snapshot %s, %s", name, snapshot.Status.RestoreSize)
	}
	return content.Labels[utils.VolumeSnapshotContentManagedByLabel], &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: *content.Status.SnapshotHandle},
	}}, nil
}
