package csi

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/volume/util"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes"
	"flyball.dev/kubelet/volumes/internal/objects"
)

// Attributes of a Volume, which are all that undoing it takes.
const (
	driverKey = "driver"
	handleKey = "handle"
)

// source is a CSI volume of a Pod, of either kind.
type source struct {
	driver, handle string
	// inline volumes live and end with their Pod: they are never attached, staged or expanded.
	inline       bool
	readOnly     bool
	fsType       string
	attributes   map[string]string
	mountOptions []string
	accessMode   v1.PersistentVolumeAccessMode
	// Secrets that the calls carry, nil for none.
	stageSecret, publishSecret, expandSecret *v1.SecretReference
}

func sourceOf(spec volumes.Spec) source {
	if in := spec.Volume.CSI; in != nil {
		s := source{
			driver: in.Driver, handle: inlineHandle(spec), inline: true, readOnly: ptr.Deref(in.ReadOnly, false),
			fsType: ptr.Deref(in.FSType, ""), attributes: in.VolumeAttributes, accessMode: v1.ReadWriteOnce,
		}
		if ref := in.NodePublishSecretRef; ref != nil {
			s.publishSecret = &v1.SecretReference{Namespace: spec.Pod.Namespace, Name: ref.Name}
		}
		return s
	}
	pv := spec.PersistentVolume.Spec
	s := source{
		driver: pv.CSI.Driver, handle: pv.CSI.VolumeHandle, readOnly: spec.ReadOnly(),
		fsType: pv.CSI.FSType, attributes: pv.CSI.VolumeAttributes, mountOptions: pv.MountOptions,
		accessMode:  v1.ReadWriteOnce,
		stageSecret: pv.CSI.NodeStageSecretRef, publishSecret: pv.CSI.NodePublishSecretRef, expandSecret: pv.CSI.NodeExpandSecretRef,
	}
	if len(pv.AccessModes) > 0 {
		s.accessMode = pv.AccessModes[0]
	}
	return s
}

// inlineHandle is upstream's.
func inlineHandle(spec volumes.Spec) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(spec.Pod.UID)+spec.Volume.Name)))
}

// Name implements volumes.Plugin.
func (*Plugin) Name() string { return Name }

// CanSupport implements volumes.Plugin.
func (*Plugin) CanSupport(spec volumes.Spec) bool {
	return spec.Volume.CSI != nil || spec.PersistentVolume != nil && spec.PersistentVolume.Spec.CSI != nil
}

// Identify implements volumes.StagingPlugin. The volume's name is that which the attach/detach
// controller uses too.
func (p *Plugin) Identify(ctx context.Context, spec volumes.Spec) (volumes.Volume, error) {
	s := sourceOf(spec)
	info, err := p.info(ctx, s.driver)
	if err != nil {
		return volumes.Volume{}, err
	}
	if err := checkMode(s, info); err != nil {
		return volumes.Volume{}, err
	}
	can, err := p.capabilities(s.driver, spec.Pod.UID)
	if err != nil {
		return volumes.Volume{}, err
	}
	v := volumes.Volume{
		Name:       util.GetUniqueVolumeName(Name, s.driver+"^"+s.handle),
		Attributes: map[string]string{driverKey: s.driver, handleKey: s.handle},
	}
	if s.inline {
		return v, nil
	}
	v.Stage = can.Has(csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
	// Without a CSIDriver nobody has said that the driver attaches nothing.
	v.Attach = info == nil || ptr.Deref(info.Spec.AttachRequired, true)
	return v, p.checkLimit(ctx, s, v, info)
}

// checkMode says why the driver does not take volumes of this kind, in upstream's words.
func checkMode(s source, info *storagev1.CSIDriver) error {
	mode := storagev1.VolumeLifecyclePersistent
	if s.inline {
		mode = storagev1.VolumeLifecycleEphemeral
	}
	switch {
	case info == nil && s.inline:
		return fmt.Errorf("volume mode %q not supported by driver %s (no CSIDriver object)", mode, s.driver)
	case info == nil || slices.Contains(info.Spec.VolumeLifecycleModes, mode):
		return nil
	}
	return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", mode, s.driver, info.Spec.VolumeLifecycleModes)
}

// limitExceeded is the reason of a Pod that fails because of checkLimit (KEP-4876).
const limitExceeded = "VolumeAttachmentLimitExceeded"

// checkLimit has the driver asked again how many volumes the node can have, if the scheduler was
// wrong about it: the attachment says so. That is for drivers whose limit changes. The Pod fails.
func (p *Plugin) checkLimit(ctx context.Context, s source, v volumes.Volume, info *storagev1.CSIDriver) error {
	if !v.Attach || updatePeriod(info) == 0 {
		return nil
	}
	attachment, err := p.cfg.Client.StorageV1().VolumeAttachments().Get(ctx, p.attachment(s), metav1.GetOptions{})
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil // the controller has not made it yet, and the volume waits for that
	} else if err != nil {
		return fmt.Errorf("reading the VolumeAttachment: %w", err)
	}
	failure := attachment.Status.AttachError
	if failure == nil || attachment.Status.Attached || ptr.Deref(failure.ErrorCode, 0) != int32(codes.ResourceExhausted) {
		return nil
	}
	if err := p.refresh(ctx, s.driver); err != nil {
		klog.FromContext(ctx).Error(err, "Cannot update the limit of a CSI driver's volumes", "driver", s.driver)
	}
	return &volumes.RefusedError{Reason: limitExceeded, Message: fmt.Sprintf(
		"the node cannot have more volumes of CSI driver %s: %s", s.driver, failure.Message)}
}

// attachment is the name of the VolumeAttachment, as the attach/detach controller makes it.
func (p *Plugin) attachment(s source) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(s.handle+s.driver+p.cfg.NodeName)))
}

// publishContext is what attaching the volume has told about it.
func (p *Plugin) publishContext(ctx context.Context, s source, v volumes.Volume) (map[string]string, error) {
	if !v.Attach {
		return nil, nil
	}
	// The graph of the authorizer may not know the attachment yet.
	attachment, err := objects.Retry(apierrors.IsForbidden, func() (*storagev1.VolumeAttachment, error) {
		return p.cfg.Client.StorageV1().VolumeAttachments().Get(ctx, p.attachment(s), metav1.GetOptions{})
	})
	if err != nil {
		return nil, fmt.Errorf("reading the VolumeAttachment: %w", err)
	}
	return attachment.Status.AttachmentMetadata, nil
}
