//go:build linux

package driver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ControllerGetCapabilities implements csi.ControllerServer.
func (d *Driver) ControllerGetCapabilities(context.Context, *csi.ControllerGetCapabilitiesRequest) (*csi.ControllerGetCapabilitiesResponse, error) {
	response := &csi.ControllerGetCapabilitiesResponse{}
	for _, rpc := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		response.Capabilities = append(response.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: rpc}},
		})
	}
	return response, nil
}

// CreateVolume implements csi.ControllerServer. The name of a volume is its id.
func (d *Driver) CreateVolume(ctx context.Context, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	if r.GetName() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the name or the capabilities of the volume are missing")
	}
	t, err := d.parse(r.GetParameters(), r.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	if accessible := r.GetAccessibilityRequirements().GetRequisite(); len(accessible) > 0 && !d.isIn(accessible...) {
		return nil, status.Errorf(codes.ResourceExhausted, "this driver makes volumes on node %s only", d.config.NodeName)
	}
	id := idOf(r.GetName())
	v, err := d.inBackground(ctx, volumes, id, func(ctx context.Context) (*Volume, error) {
		return d.create(ctx, id, t, r)
	})
	if err == nil {
		err = matches(v, t, r)
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeResponse{Volume: d.volume(v, r.GetVolumeContentSource())}, nil
}

func (d *Driver) create(ctx context.Context, id string, t *template, r *csi.CreateVolumeRequest) (*Volume, error) {
	unlock, err := d.locks.lock(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	from := r.GetVolumeContentSource()
	existing, err := d.find(volumes, id)
	if status.Code(err) != codes.NotFound {
		return existing, err
	}
	v := &Volume{
		ID: id, Namespace: t.namespace, Claim: t.claim, Kind: Kind(t.kind), Block: t.block, Sparse: t.sparse,
		Source: sourceOf(from), Created: time.Now(),
	}
	least := t.least()
	var source *Volume
	if from != nil {
		folder := volumes
		if from.GetSnapshot() != nil {
			folder = snapshots
		}
		if source, err = d.find(folder, v.Source); err != nil {
			return nil, err
		}
		if r.GetParameters()[ParameterType] == "" || r.GetParameters()[ParameterType] == auto {
			v.Kind = source.Kind
		}
		if v.Kind != source.Kind || (v.Kind == directory && v.Block) {
			return nil, status.Errorf(codes.InvalidArgument, "the source %s has type %q, the new volume %q", v.Source, source.Kind, v.Kind)
		}
		least = max(least, source.Size)
	} else if v.Kind == directory && !d.quota.enabled(t.base) {
		return nil, status.Errorf(codes.InvalidArgument,
			"the file system of %s has no project quotas, which limit directories; mount it with the option prjquota, or set the parameter %s to %q",
			t.base, ParameterType, image)
	}
	if v.Size, err = sizeIn(r.GetCapacityRange(), least); err != nil {
		return nil, err
	}
	v.Needs = v.Size
	return v, d.make(ctx, t.base, volumes, v, source)
}

// make makes a volume or snapshot and its content.
func (d *Driver) make(ctx context.Context, base, folder string, v, source *Volume) error {
	err := d.begin(base, folder, v)
	if err == nil {
		err = d.fill(ctx, v, source)
	}
	if err == nil {
		err = v.finish()
	}
	if err != nil {
		return errors.Join(err, d.remove(v))
	}
	return nil
}

// matches says how a volume differs from the one that is asked for under its name, if it does.
func matches(v *Volume, t *template, r *csi.CreateVolumeRequest) error {
	limit := r.GetCapacityRange().GetLimitBytes()
	var differs string
	switch kind := r.GetParameters()[ParameterType]; {
	case v.Size < r.GetCapacityRange().GetRequiredBytes(), limit > 0 && v.Size > limit:
		differs = fmt.Sprintf("has %d bytes", v.Size)
	case kind != "" && kind != auto && Kind(kind) != v.Kind:
		differs = fmt.Sprintf("has type %q", v.Kind)
	case v.Block != t.block, v.Sparse != t.sparse, v.base() != t.base:
		differs = "differs in access type, allocation or path"
	case v.Source != sourceOf(r.GetVolumeContentSource()):
		differs = fmt.Sprintf("has the content of %q", v.Source)
	default:
		return nil
	}
	return status.Errorf(codes.AlreadyExists, "volume %s exists and %s", v.ID, differs)
}

func sourceOf(from *csi.VolumeContentSource) string {
	return from.GetSnapshot().GetSnapshotId() + from.GetVolume().GetVolumeId() // one of them is empty
}

func (d *Driver) volume(v *Volume, from *csi.VolumeContentSource) *csi.Volume {
	return &csi.Volume{
		VolumeId: v.ID, CapacityBytes: v.Size, ContentSource: from, AccessibleTopology: []*csi.Topology{d.topology()},
		// For people; the driver looks itself.
		VolumeContext: map[string]string{"type": string(v.Kind), "path": v.Path},
	}
}

func (d *Driver) topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{TopologyKey: d.config.NodeName}}
}

func (d *Driver) isIn(topologies ...*csi.Topology) bool {
	for _, topology := range topologies {
		if node, ok := topology.GetSegments()[TopologyKey]; !ok || node == d.config.NodeName {
			return true
		}
	}
	return false
}

// DeleteVolume implements csi.ControllerServer.
func (d *Driver) DeleteVolume(ctx context.Context, r *csi.DeleteVolumeRequest) (*csi.DeleteVolumeResponse, error) {
	if r.GetVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the volume is missing")
	}
	v, unlock, err := d.locked(ctx, r.GetVolumeId())
	if status.Code(err) == codes.NotFound {
		return &csi.DeleteVolumeResponse{}, nil
	} else if err != nil {
		return nil, err
	}
	defer unlock()
	if busy, err := v.busy(); err != nil || busy {
		return nil, errors.Join(err, status.Errorf(codes.FailedPrecondition, "volume %s is in use on node %s", v.ID, d.config.NodeName))
	}
	return &csi.DeleteVolumeResponse{}, d.remove(v)
}

// locked returns a volume after locking it.
func (d *Driver) locked(ctx context.Context, id string) (*Volume, func(), error) {
	unlock, err := d.locks.lock(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	v, err := d.find(volumes, id)
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return v, unlock, nil
}

// ValidateVolumeCapabilities implements csi.ControllerServer.
func (d *Driver) ValidateVolumeCapabilities(_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if r.GetVolumeId() == "" || len(r.GetVolumeCapabilities()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the id or the capabilities of the volume are missing")
	}
	v, err := d.find(volumes, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	for _, capability := range r.GetVolumeCapabilities() {
		err := checkCapability(capability)
		if err == nil && v.Block != (capability.GetBlock() != nil) {
			err = status.Errorf(codes.InvalidArgument, "volume %s has another access type", v.ID)
		}
		if err != nil {
			return &csi.ValidateVolumeCapabilitiesResponse{Message: status.Convert(err).Message()}, nil
		}
	}
	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: r.GetVolumeContext(), VolumeCapabilities: r.GetVolumeCapabilities(), Parameters: r.GetParameters(),
	}}, nil
}

// ListVolumes implements csi.ControllerServer.
func (d *Driver) ListVolumes(_ context.Context, r *csi.ListVolumesRequest) (*csi.ListVolumesResponse, error) {
	found, err := d.List()
	if err != nil {
		return nil, err
	}
	found, next, err := page(found, r.GetStartingToken(), r.GetMaxEntries())
	response := &csi.ListVolumesResponse{NextToken: next}
	for _, v := range found {
		response.Entries = append(response.Entries, &csi.ListVolumesResponse_Entry{Volume: d.volume(v, nil)})
	}
	return response, err
}

// page returns the part of a list that begins at a token, and the token of the next one.
func page(all []*Volume, token string, most int32) (part []*Volume, next string, err error) {
	start := 0
	if token != "" {
		if start, err = strconv.Atoi(token); err != nil || start < 0 || start > len(all) {
			return nil, "", status.Errorf(codes.Aborted, "the token %q begins no page; list from the start", token)
		}
	}
	end := len(all)
	if most > 0 && start+int(most) < end {
		end = start + int(most)
		next = strconv.Itoa(end)
	}
	return all[start:end], next, nil
}

// GetCapacity implements csi.ControllerServer.
func (d *Driver) GetCapacity(_ context.Context, r *csi.GetCapacityRequest) (*csi.GetCapacityResponse, error) {
	t, err := d.parse(r.GetParameters(), r.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	limited := t.kind == string(image) || d.quota.enabled(t.base)
	if !limited || (r.GetAccessibleTopology() != nil && !d.isIn(r.GetAccessibleTopology())) {
		return &csi.GetCapacityResponse{}, nil
	}
	d.room.Lock()
	defer d.room.Unlock()
	free, err := d.free(t.base)
	return &csi.GetCapacityResponse{AvailableCapacity: free / mebibyte * mebibyte}, err
}

// ControllerExpandVolume implements csi.ControllerServer. The node then makes the device and the
// file system larger, at once or when the volume is staged.
func (d *Driver) ControllerExpandVolume(ctx context.Context, r *csi.ControllerExpandVolumeRequest) (*csi.ControllerExpandVolumeResponse, error) {
	if r.GetVolumeId() == "" || r.GetCapacityRange() == nil {
		return nil, status.Error(codes.InvalidArgument, "the id of the volume or its new size is missing")
	}
	v, unlock, err := d.locked(ctx, r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	defer unlock()
	size, err := sizeIn(r.GetCapacityRange(), v.Size)
	if err != nil {
		return nil, err
	}
	if size > v.Size {
		if err := d.expand(v, size); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: v.Size, NodeExpansionRequired: v.Kind == image}, nil
}

// expand can be repeated when a process was killed in between, as the size is written last.
func (d *Driver) expand(v *Volume, size int64) error {
	d.room.Lock()
	defer d.room.Unlock()
	if err := d.checkRoom(v.base(), size-v.Size); err != nil {
		return err
	}
	v.Size, v.Needs = size, size
	if v.Kind == directory {
		if err := d.quota.limit(v.Path, v.Project, size); err != nil {
			return err
		}
		return v.save()
	}
	file, err := os.OpenFile(v.Image(), os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("opening an image to expand it: %w", err)
	}
	defer file.Close()
	if err := extend(file, v); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("writing an image to disk: %w", err)
	}
	return v.save()
}
