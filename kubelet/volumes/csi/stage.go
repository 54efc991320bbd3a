package csi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"

	"flyball.dev/kubelet/volumes"
)

// Stage implements volumes.StagingPlugin. Drivers get a directory for block devices, too.
func (p *Plugin) Stage(ctx context.Context, spec volumes.Spec, volume volumes.Volume, path string) error {
	s := sourceOf(spec)
	d, err := p.driver(s.driver, spec.Pod.UID)
	if err != nil {
		return err
	}
	publishContext, err := p.publishContext(ctx, s, volume)
	if err != nil {
		return err
	}
	secrets, err := p.secret(ctx, s.stageSecret)
	if err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("making the directory to stage the volume at: %w", err)
	}
	_, err = d.NodeStageVolume(ctx, &csipb.NodeStageVolumeRequest{
		VolumeId: s.handle, StagingTargetPath: path, VolumeCapability: capabilityOf(spec, s, d),
		PublishContext: publishContext, VolumeContext: s.attributes, Secrets: secrets,
	})
	return err
}

// Unstage implements volumes.StagingPlugin.
func (p *Plugin) Unstage(ctx context.Context, volume volumes.Volume, path string) error {
	d, err := p.driver(volume.Attributes[driverKey], "")
	if err != nil {
		return err
	}
	if !d.capabilities.Has(csipb.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		return nil // it can no more, or never could
	}
	_, err = d.NodeUnstageVolume(ctx, &csipb.NodeUnstageVolumeRequest{
		VolumeId: volume.Attributes[handleKey], StagingTargetPath: path,
	})
	return err
}

// capabilityOf is how the Pod uses the volume.
func capabilityOf(spec volumes.Spec, s source, d *driver) *csipb.VolumeCapability {
	capability := &csipb.VolumeCapability{
		AccessMode: &csipb.VolumeCapability_AccessMode{
			Mode: accessMode(s.accessMode, d.capabilities.Has(csipb.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)),
		},
		AccessType: &csipb.VolumeCapability_Block{Block: &csipb.VolumeCapability_BlockVolume{}},
	}
	if spec.Block() {
		return capability
	}
	mount := &csipb.VolumeCapability_MountVolume{FsType: s.fsType, MountFlags: s.mountOptions}
	if group := volumes.FSGroup(spec.Pod); group != nil && d.ownsVolumes() {
		mount.VolumeMountGroup = strconv.FormatInt(*group, 10)
	}
	capability.AccessType = &csipb.VolumeCapability_Mount{Mount: mount}
	return capability
}

// accessMode maps the access mode of a PersistentVolume. Drivers that do not know the modes for
// several writers on one node get the older one.
func accessMode(mode v1.PersistentVolumeAccessMode, multiWriter bool) csipb.VolumeCapability_AccessMode_Mode {
	switch {
	case mode == v1.ReadOnlyMany:
		return csipb.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case mode == v1.ReadWriteMany:
		return csipb.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case mode == v1.ReadWriteOnce && multiWriter:
		return csipb.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	case mode == v1.ReadWriteOncePod && multiWriter:
		return csipb.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case mode == v1.ReadWriteOnce || mode == v1.ReadWriteOncePod:
		return csipb.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
	}
	return csipb.VolumeCapability_AccessMode_UNKNOWN
}

// ownsVolumes says whether the driver itself gives volumes to the Pod's fsGroup.
func (d *driver) ownsVolumes() bool {
	return d.capabilities.Has(csipb.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP)
}
