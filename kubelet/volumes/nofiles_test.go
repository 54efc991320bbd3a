//go:build linux

package volumes

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

// TestNoFiles: a simulated node waits for missing objects, but makes no files and checks none.
func TestNoFiles(t *testing.T) {
	root := t.TempDir()
	m, err := New(Config{
		RootDir: root, Client: fake.NewClientset(), NoFiles: true, Changed: func(types.UID) {},
		Allocatable: func() v1.ResourceList { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer m.objects.Close()
	p := pod(
		v1.Volume{Name: "empty", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
		v1.Volume{Name: "host", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/no/such", Type: new(v1.HostPathDirectory)}}},
		v1.Volume{Name: "claim", VolumeSource: v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "x"}}},
		projectedVolume(v1.VolumeProjection{PodCertificate: &v1.PodCertificateProjection{SignerName: "example.com/s", CredentialBundlePath: "x"}}),
	)
	mounted, err := m.Mount(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(root, "pods/uid-1/volumes")
	want := map[string]Mounted{
		"empty": {HostPath: dir + "/kubernetes.io~empty-dir/empty", SELinuxRelabel: true},
		"host":  {HostPath: "/no/such"},
		"claim": {HostPath: dir + "/claim"},
		"v":     {HostPath: dir + "/kubernetes.io~projected/v", ReadOnly: true, SELinuxRelabel: true},
	}
	if diff := cmp.Diff(want, mounted); diff != "" {
		t.Errorf("Mount() -want +got:\n%s", diff)
	}
	files, err := m.Prepare(t.Context(), p, mounted, FilesSpec{
		Container: "c", Hosts: &HostsFile{}, TerminationLog: true, SubPaths: map[int]SubPath{0: {Volume: "empty", Path: "sub"}},
	})
	if err != nil || files.SubPaths[0] != want["empty"].HostPath+"/sub" || files.EtcHosts == "" || files.TerminationLog == "" {
		t.Errorf("Prepare() = %v, %v", files, err)
	}
	missing := pod(vol(v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "none"}}))
	missing.UID = "uid-2"
	message := `MountVolume.SetUp failed for volume "v" : secret "none" not found`
	if _, err := m.Mount(t.Context(), missing); err == nil || err.Error() != message {
		t.Errorf("Mount() = %v, want %s", err, message)
	}
	for _, uid := range []types.UID{"uid-1", "uid-2"} {
		if err := m.Unmount(t.Context(), uid); err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Errorf("the root has %v, %v", entries, err)
	}
}
