//go:build linux

package volumes

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

func TestTotalVolumes(t *testing.T) {
	f := newFixture(t)
	p := pod(vol(v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}))
	f.mount(p)
	want := `
# HELP volume_manager_total_volumes Number of volumes of Pods, by plugin: those that are wanted (desired_state_of_world) and those that are mounted (actual_state_of_world).
# TYPE volume_manager_total_volumes gauge
volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="actual_state_of_world"} 1
volume_manager_total_volumes{plugin_name="kubernetes.io/empty-dir",state="desired_state_of_world"} 1
`
	if err := testutil.CollectAndCompare(total{f.Manager}, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(f.seconds); n != 1 {
		t.Errorf("a mount was measured %d times, want 1", n)
	}
	if err := f.Unmount(context.Background(), p.UID); err != nil {
		t.Fatal(err)
	}
	if n := testutil.CollectAndCount(total{f.Manager}); n != 0 {
		t.Errorf("after unmounting, %d series of volumes are left", n)
	}
}

func TestClaimSizes(t *testing.T) {
	f, c := newFixture(t), csiClaim()
	m := f.withDisk(newDisk(t), nil)
	c.put(t, f)
	f.mount(claimPod())
	want := `
# HELP kubelet_volume_stats_capacity_bytes Size of the volume.
# TYPE kubelet_volume_stats_capacity_bytes gauge
kubelet_volume_stats_capacity_bytes{namespace="ns",persistentvolumeclaim="claim"} 1.048576e+06
`
	if err := testutil.CollectAndCompare(claimSizes{m}, strings.NewReader(want), "kubelet_volume_stats_capacity_bytes"); err != nil {
		t.Error(err)
	}
	if n := testutil.CollectAndCount(claimSizes{m}); n != 6 {
		t.Errorf("%d figures, want 6", n)
	}
}

// measuringDisk also measures.
type measuringDisk struct {
	*disk
	calls int
	err   error
}

func (d *measuringDisk) Stats(ctx context.Context, _ Volume, target, staging string) (statsapi.FsStats, error) {
	if err := ctx.Err(); err != nil {
		return statsapi.FsStats{}, err
	}
	d.calls++
	if filepath.Base(target) != "mount" || filepath.Base(staging) != "globalmount" {
		return statsapi.FsStats{}, fmt.Errorf("wrong paths %s and %s", target, staging)
	}
	return statsapi.FsStats{UsedBytes: new(uint64(7))}, d.err
}

// TestPluginStats: a plugin that measures is asked once a minute, also if it fails.
func TestPluginStats(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		err    error
		want   int
		used   uint64
	}{
		"Measures": {reason: "its figures are those of the volume", want: 1, used: 7},
		"Fails":    {reason: "no figure is better than a wrong one", err: errors.New("no answer")},
		"Cannot":   {reason: "the file system has figures too", err: ErrNoStats, want: 1, used: 0},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newFixture(t), csiClaim()
			d := &measuringDisk{disk: newDisk(t), err: tc.err}
			f.plugins = []Plugin{d}
			m := f.restart(filepath.Dir(f.pods))
			f.Manager = m
			c.put(t, f)
			p := claimPod()
			f.mount(p)
			gaveUp, cancel := context.WithCancel(t.Context())
			cancel()
			if stats := m.Stats(gaveUp); len(stats) > 0 {
				t.Errorf("Stats() = %+v for somebody who does not wait", stats)
			}
			for range 2 {
				stats := m.Stats(t.Context())[p.UID]
				if len(stats) != tc.want || tc.want > 0 && *stats[0].UsedBytes != tc.used {
					t.Errorf("%s\nStats() = %+v", tc.reason, stats)
				}
			}
			if d.calls != 1 {
				t.Errorf("%s\nthe plugin was asked %d times", tc.reason, d.calls)
			}
		})
	}
}
