//go:build linux

package gc

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	"k8s.io/kubernetes/pkg/kubelet/images/pullmanager"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/images"
)

// store is a runtime with some images; two are in use.
type store struct {
	runtimeapi.ImageServiceClient
	removed []string
}

func (s *store) ListImages(context.Context, *runtimeapi.ListImagesRequest, ...grpc.CallOption) (*runtimeapi.ListImagesResponse, error) {
	return &runtimeapi.ListImagesResponse{Images: []*runtimeapi.Image{
		{Id: "sha256:1", RepoTags: []string{"a:1"}, Size: 1},
		{Id: "sha256:2", Size: 1},
		{Id: "sha256:3", Size: 1, Pinned: true},
		{Id: "sha256:4", Size: 1},
	}}, nil
}

func (s *store) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest, ...grpc.CallOption) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{ImageFilesystems: []*runtimeapi.FilesystemUsage{{FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: "/"}}}}, nil
}

func (s *store) RemoveImage(_ context.Context, in *runtimeapi.RemoveImageRequest, _ ...grpc.CallOption) (*runtimeapi.RemoveImageResponse, error) {
	s.removed = append(s.removed, in.Image.Image)
	return &runtimeapi.RemoveImageResponse{}, nil
}

// containers are those of the runtime.
type containers struct {
	runtimeapi.RuntimeServiceClient
}

func (containers) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{
		{ImageRef: "a:1", Annotations: map[string]string{cri.AnnotationImageVolumes: "sha256:9,sha256:4"}},
	}}, nil
}

func TestReconcile(t *testing.T) {
	s := &store{}
	var events []string
	notified := 0
	// On any disk: in use is always more than nothing, and all of it is too much.
	c := Controller{
		Images: s, Runtime: containers{}, Policy: Policy{HighPercent: 0, LowPercent: -1, MinAge: time.Minute},
		Removed: func() { notified++ },
		Event:   func(_, reason, _ string) { events = append(events, reason) },
	}
	for _, now := range []time.Time{noon, noon.Add(2 * time.Minute)} {
		if err := c.Reconcile(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if now.Equal(noon) && len(s.removed) > 0 {
			t.Errorf("removed %v at the first observation", s.removed)
		}
	}
	if diff := cmp.Diff([]string{"sha256:2"}, s.removed); diff != "" {
		t.Errorf("removed -want +got:\n%s", diff)
	}
	if notified != 1 {
		t.Errorf("Removed was called %d times, want once", notified)
	}
	if diff := cmp.Diff([]string{"FreeDiskSpaceFailed", "FreeDiskSpaceFailed"}, events); diff != "" {
		t.Errorf("events -want +got:\n%s", diff)
	}
}

// TestReconcilePrunes: the record of an image's pull is removed with the image.
func TestReconcilePrunes(t *testing.T) {
	s, dir := &store{}, t.TempDir()
	access, err := images.NewAccess(t.Context(), images.AccessConfig{Dir: dir, Images: s})
	if err != nil {
		t.Fatal(err)
	}
	records, err := pullmanager.NewFSPullRecordsAccessor(klog.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"sha256:1", "sha256:gone"} {
		record := &kubeletconfig.ImagePulledRecord{ImageRef: id, LastUpdatedTime: metav1.NewTime(noon.AddDate(-20, 0, 0))}
		if err := records.WriteImagePulledRecord(klog.Background(), record); err != nil {
			t.Fatal(err)
		}
	}
	if err := (&Controller{Images: s, Runtime: containers{}, Access: access}).Reconcile(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if r, _, err := records.GetImagePulledRecord("sha256:1"); err != nil || r == nil {
		t.Errorf("the record of a present image is %v, %v", r, err)
	}
	if r, _, err := records.GetImagePulledRecord("sha256:gone"); err != nil || r != nil {
		t.Errorf("the record of an image that is gone is %v, %v", r, err)
	}
}
