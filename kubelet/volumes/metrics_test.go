package volumes

import (
	"context"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	v1 "k8s.io/api/core/v1"
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
