package gc

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
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
