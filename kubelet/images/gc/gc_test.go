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
	"pgregory.net/rapid"

	"flyball.dev/kubelet/cri"
	"flyball.dev/kubelet/images"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func TestPlan(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	old := image{ID: "old", Size: 10, FirstSeen: ago(9 * time.Hour), LastUsed: ago(8 * time.Hour)}
	older := image{ID: "older", Size: 10, FirstSeen: ago(9 * time.Hour)}
	fresh := image{ID: "fresh", Size: 10, FirstSeen: ago(time.Minute)}
	used := image{ID: "used", Size: 10, FirstSeen: ago(9 * time.Hour), LastUsed: noon, InUse: true}
	pinned := image{ID: "pinned", Size: 10, FirstSeen: ago(9 * time.Hour), Pinned: true}
	all := []image{old, older, fresh, used, pinned}
	cases := map[string]struct {
		reason  string
		free    int64
		want    []string
		missing int64
	}{
		"Roomy":   {reason: "below the high threshold nothing is removed", free: 16},
		"Filling": {reason: "images that were never used go first, and no more than needed", free: 15, want: []string{"older"}},
		"Fuller":  {reason: "until the low threshold is reached", free: 5, want: []string{"older", "old"}},
		"Full":    {reason: "the bytes that cannot be freed are returned", free: -10, want: []string{"older", "old"}, missing: 10},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			removals, missing := plan(all, disk{Capacity: 100, Available: tc.free}, DefaultPolicy, noon)
			var got []string
			for _, r := range removals {
				got = append(got, r.ID)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nplan() -want +got:\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.missing, missing); diff != "" {
				t.Errorf("%s\nmissing -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// From any state: nothing in use, pinned or new is removed, and a second plan after the first is
// empty.
func TestPlanProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		images := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) image {
			return image{
				ID: rapid.StringN(1, 3, 3).Draw(t, "id"), Size: rapid.Int64Range(0, 50).Draw(t, "size"),
				Pinned: rapid.Bool().Draw(t, "pinned"), InUse: rapid.Bool().Draw(t, "used"),
				FirstSeen: noon.Add(-time.Duration(rapid.IntRange(0, 300).Draw(t, "age")) * time.Second),
			}
		}), func(i image) string { return i.ID }).Draw(t, "images")
		d := disk{Capacity: 100, Available: rapid.Int64Range(0, 100).Draw(t, "free")}
		removals, missing := plan(images, d, DefaultPolicy, noon)
		left := map[string]image{}
		for _, i := range images {
			left[i.ID] = i
		}
		for _, r := range removals {
			i := left[r.ID]
			if i.Pinned || i.InUse || noon.Sub(i.FirstSeen) < DefaultPolicy.MinAge {
				t.Fatalf("removes %+v", i)
			}
			delete(left, r.ID)
			d.Available += r.Size
		}
		var rest []image
		for _, i := range left {
			rest = append(rest, i)
		}
		again, still := plan(rest, d, DefaultPolicy, noon)
		if missing == 0 && (len(again) > 0 || still > 0) {
			t.Fatalf("removes %v, and then %v (missing %d)", removals, again, still)
		}
	})
}

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

func (s *store) ListContainers(context.Context, *runtimeapi.ListContainersRequest, ...grpc.CallOption) (*runtimeapi.ListContainersResponse, error) {
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
		Images: s, Containers: s, Policy: Policy{HighPercent: 0, LowPercent: -1, MinAge: time.Minute},
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
	if err := (&Controller{Images: s, Containers: s, Access: access}).Reconcile(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	if r, _, err := records.GetImagePulledRecord("sha256:1"); err != nil || r == nil {
		t.Errorf("the record of a present image is %v, %v", r, err)
	}
	if r, _, err := records.GetImagePulledRecord("sha256:gone"); err != nil || r != nil {
		t.Errorf("the record of an image that is gone is %v, %v", r, err)
	}
}
