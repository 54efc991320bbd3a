//go:build linux

package driver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// idOf returns the id of what has a name: the name itself, unless it is no name for a folder.
func idOf(name string) string {
	if validID.MatchString(name) {
		return name
	}
	hash := sha256.Sum256([]byte(name))
	return "name-" + hex.EncodeToString(hash[:])
}

// lockSnapshot locks a snapshot; the locks of volumes are called after their ids.
func (d *Driver) lockSnapshot(ctx context.Context, id string) (unlock func(), err error) {
	return d.locks.lock(ctx, snapshots+"/"+id)
}

// CreateSnapshot implements csi.ControllerServer. The name of a snapshot is its id.
func (d *Driver) CreateSnapshot(ctx context.Context, r *csi.CreateSnapshotRequest) (*csi.CreateSnapshotResponse, error) {
	if r.GetName() == "" || r.GetSourceVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the name of the snapshot or the id of its volume is missing")
	}
	for key := range r.GetParameters() {
		return nil, status.Errorf(codes.InvalidArgument, "the VolumeSnapshotClass has an unknown parameter %q; there are none", key)
	}
	id := idOf(r.GetName())
	v, err := d.inBackground(ctx, snapshots, id, func(ctx context.Context) (*Volume, error) {
		return d.createSnapshot(ctx, id, r.GetSourceVolumeId())
	})
	if err == nil && v.Source != r.GetSourceVolumeId() {
		err = status.Errorf(codes.AlreadyExists, "snapshot %s exists, of volume %s", id, v.Source)
	}
	if err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: snapshot(v)}, nil
}

func (d *Driver) createSnapshot(ctx context.Context, id, volume string) (*Volume, error) {
	unlock, err := d.lockSnapshot(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	existing, err := d.find(snapshots, id)
	if status.Code(err) != codes.NotFound {
		return existing, err
	}
	source, err := d.find(volumes, volume)
	if err != nil {
		return nil, err
	}
	v := *source
	// Sparse: a snapshot takes the blocks that have data, and nobody writes to it.
	v.ID, v.Source, v.Created, v.Sparse, v.Project, v.Shared = id, source.ID, time.Now(), true, 0, 0
	if v.Needs, err = d.used(source); err != nil {
		return nil, err
	}
	return &v, d.make(ctx, source.base(), snapshots, &v, source)
}

func snapshot(v *Volume) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId: v.ID, SourceVolumeId: v.Source, SizeBytes: v.Size, CreationTime: timestamppb.New(v.Created), ReadyToUse: true,
	}
}

// DeleteSnapshot implements csi.ControllerServer.
func (d *Driver) DeleteSnapshot(ctx context.Context, r *csi.DeleteSnapshotRequest) (*csi.DeleteSnapshotResponse, error) {
	id := r.GetSnapshotId()
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "the id of the snapshot is missing")
	}
	unlock, err := d.lockSnapshot(ctx, id)
	if err != nil {
		return nil, err
	}
	defer unlock()
	v, err := d.find(snapshots, id)
	if err == nil {
		err = d.remove(v)
	}
	if status.Code(err) == codes.NotFound {
		err = nil
	}
	return &csi.DeleteSnapshotResponse{}, err
}

// ListSnapshots implements csi.ControllerServer.
func (d *Driver) ListSnapshots(_ context.Context, r *csi.ListSnapshotsRequest) (*csi.ListSnapshotsResponse, error) {
	found, err := d.list(snapshots, "")
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(v *Volume) bool {
		return r.GetSnapshotId() != "" && r.GetSnapshotId() != v.ID || r.GetSourceVolumeId() != "" && r.GetSourceVolumeId() != v.Source
	})
	found, next, err := page(found, r.GetStartingToken(), r.GetMaxEntries())
	response := &csi.ListSnapshotsResponse{NextToken: next}
	for _, v := range found {
		response.Entries = append(response.Entries, &csi.ListSnapshotsResponse_Entry{Snapshot: snapshot(v)})
	}
	return response, err
}
