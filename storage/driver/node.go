//go:build linux

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flyball.dev/internal/loop"
	"flyball.dev/internal/mounts"
	"flyball.dev/internal/xfs"
)

// NodeGetCapabilities implements csi.NodeServer.
func (d *Driver) NodeGetCapabilities(context.Context, *csi.NodeGetCapabilitiesRequest) (*csi.NodeGetCapabilitiesResponse, error) {
	response := &csi.NodeGetCapabilitiesResponse{}
	for _, rpc := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: rpc}},
		})
	}
	return response, nil
}

// NodeGetInfo implements csi.NodeServer.
func (d *Driver) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{NodeId: d.config.NodeName, AccessibleTopology: d.topology()}, nil
}

// staged is what stage and publish have in common: it checks the arguments and locks the volume.
func (d *Driver) staged(ctx context.Context, id string, capability *csi.VolumeCapability, paths ...string) (*Volume, uintptr, func(), error) {
	if slices.Contains(append(paths, id), "") {
		return nil, 0, nil, status.Error(codes.InvalidArgument, "the id of the volume or a path is missing")
	}
	if err := checkCapability(capability); err != nil {
		return nil, 0, nil, err
	}
	flags, err := flagsOf(capability)
	if err != nil {
		return nil, 0, nil, err
	}
	v, unlock, err := d.locked(ctx, id)
	if err == nil && v.Block != (capability.GetBlock() != nil) {
		unlock()
		err = status.Errorf(codes.InvalidArgument, "volume %s has another access type", v.ID)
	}
	return v, flags, unlock, err
}

// NodeStageVolume implements csi.NodeServer.
func (d *Driver) NodeStageVolume(ctx context.Context, r *csi.NodeStageVolumeRequest) (*csi.NodeStageVolumeResponse, error) {
	v, flags, unlock, err := d.staged(ctx, r.GetVolumeId(), r.GetVolumeCapability(), r.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	defer unlock()
	response, target := &csi.NodeStageVolumeResponse{}, r.GetStagingTargetPath()
	if !v.Block {
		if err := os.MkdirAll(target, 0o750); err != nil {
			return nil, fmt.Errorf("making the staging directory: %w", err)
		}
	}
	if v.Kind == directory {
		return response, bind(v.Data(), target, flags)
	}
	device, err := loop.Attach(v.Image(), loop.Options{
		// A file system is detached when it is unmounted, whatever happens to this process.
		Autoclear: !v.Block,
		Direct:    !v.Block,
		NoDiscard: !v.Sparse,
		ReadOnly:  v.Block && r.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	})
	if err != nil {
		return nil, err
	}
	defer device.Close()
	if v.Block {
		return response, nil
	}
	return response, mountImage(v, device.Name(), target, flags)
}

// mountImage can be repeated when a process was killed in between.
func mountImage(v *Volume, device, target string, flags uintptr) error {
	mounted, err := mountinfo.Mounted(target)
	if err == nil && !mounted {
		options := "nouuid" // a clone has the identity of its source
		if v.Sparse {
			options += ",discard"
		}
		err = unix.Mount(device, target, fsType, flags, options)
	}
	if err != nil {
		return fmt.Errorf("mounting the XFS file system of %s: %w", v.Image(), err)
	}
	if flags&unix.MS_RDONLY != 0 {
		return nil
	}
	// The image of a clone or of a volume that was expanded meanwhile is larger than what is in it.
	return xfs.Grow(target, v.Size)
}

// bind mounts source at target as well, with flags.
func bind(source, target string, flags uintptr) error {
	if mounted, err := mountinfo.Mounted(target); err != nil {
		return err
	} else if !mounted {
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mounting %s at %s: %w", source, target, err)
		}
	}
	if flags == 0 {
		return nil
	}
	// The first call ignores flags. Again also when it is mounted, as a killed process may have
	// stopped in between.
	if err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""); err != nil {
		return fmt.Errorf("setting the mount options of %s: %w", target, err)
	}
	return nil
}

// NodeUnstageVolume implements csi.NodeServer.
func (d *Driver) NodeUnstageVolume(ctx context.Context, r *csi.NodeUnstageVolumeRequest) (*csi.NodeUnstageVolumeResponse, error) {
	if r.GetVolumeId() == "" || r.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the volume or the staging path is missing")
	}
	unlock, err := d.locks.lock(ctx, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := syncAndUnmount(r.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	v, err := d.find(volumes, r.GetVolumeId())
	if status.Code(err) == codes.NotFound {
		err = nil
	} else if err == nil && v.Block {
		err = loop.Detach(v.Image())
	}
	return &csi.NodeUnstageVolumeResponse{}, err
}

// syncAndUnmount writes a file system to its image, although a copy of the mount may live on.
func syncAndUnmount(path string) error {
	if mounted, err := mountinfo.Mounted(path); err == nil && mounted {
		dir, err := os.Open(path)
		if err == nil {
			err = errors.Join(unix.Syncfs(int(dir.Fd())), dir.Close())
		}
		// One that has failed can be unmounted nonetheless.
		if err != nil && !errors.Is(err, unix.EIO) {
			return fmt.Errorf("writing the file system at %s to disk: %w", path, err)
		}
	}
	return unmount(path)
}

// unmount unmounts everything that is mounted at a path, one on top of the other.
func unmount(path string) error {
	for {
		mounted, err := mountinfo.Mounted(path)
		if errors.Is(err, os.ErrNotExist) || (err == nil && !mounted) {
			return nil
		}
		if err == nil {
			err = mounts.Unmount(path)
		}
		if err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
	}
}

// NodePublishVolume implements csi.NodeServer.
func (d *Driver) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	v, flags, unlock, err := d.staged(ctx, r.GetVolumeId(), r.GetVolumeCapability(), r.GetTargetPath(), r.GetStagingTargetPath())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if r.GetReadonly() || r.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY {
		flags |= unix.MS_RDONLY
	}
	source, target := r.GetStagingTargetPath(), r.GetTargetPath()
	if v.Block {
		source, err = loop.Find(v.Image())
	} else if mounted, mountErr := mountinfo.Mounted(source); mountErr != nil || !mounted {
		source, err = "", mountErr
	}
	if source == "" && (err == nil || errors.Is(err, os.ErrNotExist)) {
		err = status.Errorf(codes.FailedPrecondition, "volume %s is not staged at %s", v.ID, r.GetStagingTargetPath())
	}
	if err == nil && r.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		err = v.onlyAt(target, source)
	}
	if err == nil {
		err = makeTarget(target, v.Block)
	}
	if err != nil {
		return nil, err
	}
	return &csi.NodePublishVolumeResponse{}, bind(source, target, flags)
}

// onlyAt returns FailedPrecondition when a volume is published anywhere else.
func (v *Volume) onlyAt(target, staging string) error {
	points, err := v.mounts()
	for _, point := range points {
		if !samePlace(point, target) && !samePlace(point, staging) {
			return status.Errorf(codes.FailedPrecondition, "volume %s may be used by one Pod, and is at %s", v.ID, point)
		}
	}
	return err
}

// samePlace tells whether two paths name one entry of one directory. The mount table has no links, and where a directory above
// is mounted at two places, as /var/lib may be, each mount below is in it at both.
func samePlace(a, b string) bool {
	if a == b {
		return true
	}
	x, errX := os.Stat(filepath.Dir(a))
	y, errY := os.Stat(filepath.Dir(b))
	return filepath.Base(a) == filepath.Base(b) && errX == nil && errY == nil && os.SameFile(x, y)
}

// makeTarget makes what a volume is mounted on: a directory, or a file for a device.
func makeTarget(path string, device bool) error {
	if !device {
		return os.MkdirAll(path, 0o750)
	}
	file, err := os.OpenFile(path, os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("making the file that becomes a device: %w", err)
	}
	return file.Close()
}

// NodeUnpublishVolume implements csi.NodeServer.
func (d *Driver) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	if r.GetVolumeId() == "" || r.GetTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the volume or the target path is missing")
	}
	unlock, err := d.locks.lock(ctx, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := unmount(r.GetTargetPath()); err != nil {
		return nil, err
	}
	// A directory with anything in it is not ours, and stays.
	if err := os.Remove(r.GetTargetPath()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("removing what a volume was mounted on: %w", err)
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeExpandVolume implements csi.NodeServer. A directory has been expanded by the controller.
func (d *Driver) NodeExpandVolume(ctx context.Context, r *csi.NodeExpandVolumeRequest) (*csi.NodeExpandVolumeResponse, error) {
	if r.GetVolumeId() == "" || r.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the volume or its path is missing")
	}
	v, unlock, err := d.locked(ctx, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	response := &csi.NodeExpandVolumeResponse{CapacityBytes: v.Size}
	if v.Kind == directory {
		return response, nil
	}
	if busy, err := v.busy(); err != nil || !busy {
		return nil, errors.Join(err, status.Errorf(codes.FailedPrecondition, "volume %s is not staged", v.ID))
	}
	device, err := loop.Attach(v.Image(), loop.Options{NoDiscard: !v.Sparse})
	if err != nil {
		return nil, err
	}
	defer device.Close()
	if v.Block {
		return response, nil
	}
	points, err := v.mounts()
	if err != nil || len(points) == 0 {
		return nil, err
	}
	return response, xfs.Grow(points[0], v.Size) // where it is staged, also when Pods may only read
}
