//go:build linux

package images

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/kubernetes/pkg/credentialprovider"
	"pgregory.net/rapid"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func TestPlanCollect(t *testing.T) {
	ago := func(d time.Duration) time.Time { return noon.Add(-d) }
	old := Stored{ID: "old", Size: 10, FirstSeen: ago(9 * time.Hour), LastUsed: ago(8 * time.Hour)}
	older := Stored{ID: "older", Size: 10, FirstSeen: ago(9 * time.Hour)}
	fresh := Stored{ID: "fresh", Size: 10, FirstSeen: ago(time.Minute)}
	used := Stored{ID: "used", Size: 10, FirstSeen: ago(9 * time.Hour), LastUsed: noon, InUse: true}
	pinned := Stored{ID: "pinned", Size: 10, FirstSeen: ago(9 * time.Hour), Pinned: true}
	all := []Stored{old, older, fresh, used, pinned}
	cases := map[string]struct {
		reason  string
		free    int64
		want    []string
		missing int64
	}{
		"Roomy":   {reason: "below the high threshold nothing is removed", free: 16},
		"Filling": {reason: "what was never used goes first, and no more than needed", free: 15, want: []string{"older"}},
		"Fuller":  {reason: "until the low threshold is reached", free: 5, want: []string{"older", "old"}},
		"Full":    {reason: "what cannot be freed is told", free: -10, want: []string{"older", "old"}, missing: 10},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			plan, missing := planCollect(all, Disk{Capacity: 100, Available: tc.free}, DefaultPolicy, noon)
			var got []string
			for _, r := range plan {
				got = append(got, r.ID)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nplanCollect() -want +got:\n%s", tc.reason, diff)
			}
			if diff := cmp.Diff(tc.missing, missing); diff != "" {
				t.Errorf("%s\nmissing -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}

// From any state: nothing in use, pinned or new is removed, and carrying the plan
// out leaves nothing to do that could be done.
func TestPlanCollectProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		images := rapid.SliceOfDistinct(rapid.Custom(func(t *rapid.T) Stored {
			return Stored{
				ID: rapid.StringN(1, 3, 3).Draw(t, "id"), Size: rapid.Int64Range(0, 50).Draw(t, "size"),
				Pinned: rapid.Bool().Draw(t, "pinned"), InUse: rapid.Bool().Draw(t, "used"),
				FirstSeen: noon.Add(-time.Duration(rapid.IntRange(0, 300).Draw(t, "age")) * time.Second),
			}
		}), func(s Stored) string { return s.ID }).Draw(t, "images")
		disk := Disk{Capacity: 100, Available: rapid.Int64Range(0, 100).Draw(t, "free")}
		plan, missing := planCollect(images, disk, DefaultPolicy, noon)
		left := map[string]Stored{}
		for _, i := range images {
			left[i.ID] = i
		}
		for _, r := range plan {
			i := left[r.ID]
			if i.Pinned || i.InUse || noon.Sub(i.FirstSeen) < DefaultPolicy.MinAge {
				t.Fatalf("removes %+v", i)
			}
			delete(left, r.ID)
			disk.Available += r.Size
		}
		var rest []Stored
		for _, i := range left {
			rest = append(rest, i)
		}
		again, still := planCollect(rest, disk, DefaultPolicy, noon)
		if missing == 0 && (len(again) > 0 || still > 0) {
			t.Fatalf("removes %v, and then %v (missing %d)", plan, again, still)
		}
	})
}

// store is a runtime with some images, of which one is in use.
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
		{ImageRef: "a:1", Annotations: map[string]string{AnnotationVolumes: "sha256:9,sha256:4"}},
	}}, nil
}

func TestCollect(t *testing.T) {
	s := &store{}
	var events []string
	told := 0
	// On any disk: in use is always more than nothing, and all of it is too much.
	c := Collector{
		Images: s, Containers: s, Policy: Policy{HighPercent: 0, LowPercent: -1, MinAge: time.Minute},
		Removed: func() { told++ },
		Event:   func(_, reason, _ string) { events = append(events, reason) },
	}
	for _, now := range []time.Time{noon, noon.Add(2 * time.Minute)} {
		if err := c.Collect(t.Context(), now); err != nil {
			t.Fatal(err)
		}
		if now.Equal(noon) && len(s.removed) > 0 {
			t.Errorf("removed %v that we see for the first time", s.removed)
		}
	}
	if diff := cmp.Diff([]string{"sha256:2"}, s.removed); diff != "" {
		t.Errorf("removed -want +got:\n%s", diff)
	}
	if told != 1 {
		t.Errorf("told of removals %d times, want once", told)
	}
	if diff := cmp.Diff([]string{"FreeDiskSpaceFailed", "FreeDiskSpaceFailed"}, events); diff != "" {
		t.Errorf("events -want +got:\n%s", diff)
	}
}

// TestCollectForgets: who pulled an image is forgotten when the image is gone.
func TestCollectForgets(t *testing.T) {
	s := &store{}
	access, err := NewAccess(t.Context(), AccessConfig{Dir: t.TempDir(), Images: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"sha256:1", "sha256:gone"} {
		if err := access.pulling(t.Context(), "a:1"); err != nil {
			t.Fatal(err)
		}
		access.pulled(t.Context(), "a:1", id, secretOf("s"))
	}
	if err := (&Collector{Images: s, Containers: s, Access: access}).Collect(t.Context(), noon); err != nil {
		t.Fatal(err)
	}
	nobody := request{image: "a:1", credentials: func() ([]credentialprovider.TrackedAuthConfig, error) { return nil, nil }}
	if access.allows(t.Context(), nobody, "a:1", &runtimeapi.Image{Id: "sha256:1"}) {
		t.Error("the record of an image that is there is gone")
	}
	if !access.allows(t.Context(), nobody, "a:1", &runtimeapi.Image{Id: "sha256:gone"}) {
		t.Error("an image that is gone has a record")
	}
}
