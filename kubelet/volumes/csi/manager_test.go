package csi

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	csipb "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"flyball.dev/kubelet/volumes"
)

func (f *fixture) manager(root string) *volumes.Manager {
	f.t.Helper()
	m, err := volumes.New(volumes.Config{
		RootDir: root, Client: f.client, NodeName: "node-1", Plugins: []volumes.Plugin{f.Plugin},
		Node: func() *v1.Node { return &v1.Node{} }, InUseChanged: func() {}, Changed: func(types.UID) {},
		Allocatable: func() v1.ResourceList { return nil }, Event: func(*v1.Pod, string, string, string) {},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return m
}

// TestRestart unmounts with another process what one has mounted.
func TestRestart(t *testing.T) {
	spec, root := newSpec(), t.TempDir()
	f, d := newFixture(t, newInfo(), spec.Claim, spec.PersistentVolume), newFakeDriver(t, stage)
	f.register(d)
	m := f.manager(root)
	mounted, err := m.Mount(t.Context(), spec.Pod)
	if err != nil {
		t.Fatal(err)
	}
	want := filepath.Join(root, "pods", "pod-uid", "volumes", "kubernetes.io~csi", "pv", "mount")
	if got := mounted["v"].HostPath; got != want {
		t.Errorf("HostPath = %s, want upstream's %s", got, want)
	}

	f.start()
	m = f.manager(root)
	if err := m.Unmount(t.Context(), spec.Pod.UID); err == nil {
		t.Fatal("the volume was unmounted without its driver")
	}
	f.register(d)
	if !slices.Contains(f.changed, spec.Pod.UID) {
		t.Error("the Pod is not reconciled when its driver registers")
	}
	d.set("NodeUnpublishVolume", status.Error(codes.Internal, "busy"))
	if err := m.Unmount(t.Context(), spec.Pod.UID); err == nil {
		t.Fatal("the driver's failure was ignored")
	}
	d.set("NodeUnpublishVolume", nil)
	if err := m.Unmount(t.Context(), spec.Pod.UID); err != nil {
		t.Fatal(err)
	}
	go func() { _ = m.Run(t.Context()) }()
	eventually(t, "the volume is unstaged", func() bool { return d.count("NodeUnstageVolume") == 1 })
	eventually(t, "the record is removed", func() bool {
		records, _ := os.ReadDir(filepath.Join(root, "volumes"))
		return len(records) == 0
	})
	unpublish := d.last("NodeUnpublishVolume").(*csipb.NodeUnpublishVolumeRequest)
	if unpublish.VolumeId != "handle" || unpublish.TargetPath != want {
		t.Errorf("request = %v", unpublish)
	}
	if unstage := d.last("NodeUnstageVolume").(*csipb.NodeUnstageVolumeRequest); unstage.VolumeId != "handle" ||
		unstage.StagingTargetPath != d.last("NodeStageVolume").(*csipb.NodeStageVolumeRequest).StagingTargetPath {
		t.Errorf("request = %v", unstage)
	}
}
