package main

import (
	"context"
	"os"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/kubernetes/test/e2e/storage/drivers/csi-test/mock/service"
)

// inline adds inline volumes to upstream's mock, which ends with a nil pointer when it is to publish one.
type inline struct {
	service.Service
	published map[string]bool // by volume id
	mu        *sync.Mutex
}

// NodePublishVolume makes an empty directory of an inline volume.
func (s inline) NodePublishVolume(ctx context.Context, r *csi.NodePublishVolumeRequest) (*csi.NodePublishVolumeResponse, error) {
	if r.GetVolumeContext()["csi.storage.k8s.io/ephemeral"] != "true" {
		return s.Service.NodePublishVolume(ctx, r)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.MkdirAll(r.GetTargetPath(), 0o755); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	s.published[r.GetVolumeId()] = true
	return &csi.NodePublishVolumeResponse{}, nil
}

// NodeUnpublishVolume removes the directory of an inline volume.
func (s inline) NodeUnpublishVolume(ctx context.Context, r *csi.NodeUnpublishVolumeRequest) (*csi.NodeUnpublishVolumeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.published[r.GetVolumeId()] {
		return s.Service.NodeUnpublishVolume(ctx, r)
	}
	if err := os.RemoveAll(r.GetTargetPath()); err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	delete(s.published, r.GetVolumeId())
	return &csi.NodeUnpublishVolumeResponse{}, nil
}
