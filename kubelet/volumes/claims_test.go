//go:build linux

package volumes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"flyball.dev/kubelet/volumes/plan"
)

// claimPair is a claim and the PersistentVolume that it is bound to.
type claimPair struct {
	claim *v1.PersistentVolumeClaim
	pv    *v1.PersistentVolume
}

func newClaim(source v1.PersistentVolumeSource) claimPair {
	size := v1.ResourceList{v1.ResourceStorage: resource.MustParse("1Gi")}
	return claimPair{
		claim: &v1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Name: "claim", Namespace: "ns", UID: "claim-uid", ResourceVersion: "1"},
			Spec:       v1.PersistentVolumeClaimSpec{VolumeName: "pv", Resources: v1.VolumeResourceRequirements{Requests: size}},
			Status:     v1.PersistentVolumeClaimStatus{Phase: v1.ClaimBound, Capacity: size},
		},
		pv: &v1.PersistentVolume{
			ObjectMeta: metav1.ObjectMeta{Name: "pv", ResourceVersion: "1"},
			Spec: v1.PersistentVolumeSpec{
				PersistentVolumeSource: source, ClaimRef: &v1.ObjectReference{UID: "claim-uid"}, Capacity: size,
			},
		},
	}
}

func csiClaim() claimPair {
	return newClaim(v1.PersistentVolumeSource{CSI: &v1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "x"}})
}

// put makes the API server have exactly this claim.
func (c claimPair) put(t *testing.T, f *fixture) {
	t.Helper()
	for _, err := range []error{f.client.Tracker().Add(c.claim.DeepCopy()), f.client.Tracker().Add(c.pv.DeepCopy())} {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func claimVolume() v1.Volume {
	return vol(v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{ClaimName: "claim"}})
}

func claimPod() *v1.Pod { return pod(claimVolume()) }

// blockPod uses the claim as a device.
func blockPod() *v1.Pod {
	p := claimPod()
	p.Spec.Containers[0].VolumeMounts = nil
	p.Spec.Containers[0].VolumeDevices = []v1.VolumeDevice{{Name: "v", DevicePath: "/dev/v"}}
	return p
}

func TestRefusedClaims(t *testing.T) {
	ephemeral := pod(vol(v1.VolumeSource{Ephemeral: &v1.EphemeralVolumeSource{}}))
	block := ptr.To(v1.PersistentVolumeBlock)
	for name, tc := range map[string]struct {
		reason  string
		change  func(claimPair)
		pod     *v1.Pod
		err     string
		waiting bool
	}{
		"Unbound": {
			reason: "it will be, usually in a moment", waiting: true,
			change: func(c claimPair) { c.claim.Status.Phase, c.claim.Spec.VolumeName = v1.ClaimPending, "" },
			err:    "error processing PVC ns/claim: PVC is not bound",
		},
		"Missing": {
			reason: "the user may have to create it",
			change: func(c claimPair) { c.claim.Name = "other" },
			err:    `error processing PVC ns/claim: failed to fetch PVC from API server: persistentvolumeclaims "claim" not found`,
		},
		"EphemeralMissing": {
			reason: "a controller creates it", waiting: true, pod: ephemeral,
			err: "error processing PVC ns/p-v: PVC is not created yet",
		},
		"EphemeralOfUser": {
			reason: "data of somebody else is not to be had by choosing a name", pod: ephemeral,
			change: func(c claimPair) { c.claim.Name = "p-v" },
			err:    "error processing PVC ns/p-v: PVC ns/p-v was not created for pod ns/p (pod is not owner)",
		},
		"Deleted": {
			reason: "nothing protects it: it may go at any moment",
			change: func(c claimPair) { c.claim.DeletionTimestamp = new(metav1.Now()) },
			err:    "error processing PVC ns/claim: PVC is being deleted",
		},
		"Lost": {
			reason: "it does not come back",
			change: func(c claimPair) { c.claim.Status.Phase = v1.ClaimLost },
			err:    "error processing PVC ns/claim: PVC has lost its PV pv",
		},
		"NoPV": {
			reason: "it says which one",
			change: func(c claimPair) { c.pv.Name = "other" },
			err:    `error processing PVC ns/claim: failed to fetch PV pv from API server: persistentvolumes "pv" not found`,
		},
		"OtherClaim": {
			reason: "the PV belongs to a claim of the same name that was deleted",
			change: func(c claimPair) { c.pv.Spec.ClaimRef.UID = "older" },
			err:    "error processing PVC ns/claim: found PV object pv but its pv.Spec.ClaimRef.UID older does not point to claim.UID claim-uid",
		},
		"BlockMounted": {
			reason: "in upstream's words",
			change: func(c claimPair) { c.pv.Spec.VolumeMode = block },
			err:    "volume v has volumeMode Block, but is specified in volumeMounts",
		},
		"FilesystemAsDevice": {
			reason: "in upstream's words", pod: blockPod(),
			err: "volume v has volumeMode Filesystem, but is specified in volumeDevices",
		},
		"OtherNode": {
			reason: "the data is not here",
			change: func(c claimPair) { c.pv.Spec.NodeAffinity = affinity("node-2") },
			err:    "NodeAffinity check failed: PV pv cannot be used on node node-1: no matching NodeSelectorTerms",
		},
		"OtherKind": {
			reason: "the kind is that of the PV",
			change: func(c claimPair) {
				c.pv.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{ISCSI: &v1.ISCSIPersistentVolumeSource{}}
			},
			err: "volume kind iscsi is not supported: use a CSI driver, such as iscsi.csi.k8s.io",
		},
		"BlockHostPath": {
			reason: "a path is no device", pod: blockPod(),
			change: func(c claimPair) {
				c.pv.Spec.PersistentVolumeSource = v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: "/"}}
				c.pv.Spec.VolumeMode = block
			},
			err: "a hostPath PV cannot be a block device; use a local PV",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, c := newFixture(t), csiClaim()
			if tc.change != nil {
				tc.change(c)
			}
			c.put(t, f)
			m := f.withDisk(newDisk(t), nodeWithLabel)
			p := tc.pod
			if p == nil {
				p = claimPod()
			}
			_, err := m.Mount(t.Context(), p)
			e, ok := errors.AsType[*Error](err)
			if want := `MountVolume.SetUp failed for volume "v" : ` + tc.err; !ok || e.Message != want || e.Waiting != tc.waiting {
				t.Errorf("%s\nMount() = %v, want %s, waiting %v", tc.reason, err, want, tc.waiting)
			}
		})
	}
}

func nodeWithLabel() *v1.Node {
	return &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{v1.LabelHostname: "node-1"}}}
}

func affinity(node string) *v1.VolumeNodeAffinity {
	return &v1.VolumeNodeAffinity{Required: &v1.NodeSelector{NodeSelectorTerms: []v1.NodeSelectorTerm{{
		MatchExpressions: []v1.NodeSelectorRequirement{{Key: v1.LabelHostname, Operator: v1.NodeSelectorOpIn, Values: []string{node}}},
	}}}}
}

// TestClaim is bound a moment after the Pod was created. Its directories are called after the PV.
func TestClaim(t *testing.T) {
	f, c := newFixture(t), csiClaim()
	d := newDisk(t)
	m := f.withDisk(d, nil)
	bound := c.claim.DeepCopy()
	c.claim.Status.Phase = v1.ClaimPending
	c.put(t, f)
	p := claimPod()
	var e *Error
	if _, err := m.Mount(t.Context(), p); !errors.As(err, &e) || !e.Waiting {
		t.Fatalf("Mount() = %v, want it to wait", err)
	}
	if err := f.client.Tracker().Update(v1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), bound, "ns"); err != nil {
		t.Fatal(err)
	}
	if uid := f.nextChanged(); uid != p.UID {
		t.Fatalf("Changed(%s), want the Pod that waits", uid)
	}
	mounted := f.mount(p)
	if want := filepath.Join(f.pods, "uid-1", "volumes", "example.com~disk", "pv", "mount"); mounted["v"].HostPath != want {
		t.Errorf("the volume is at %s, want %s", mounted["v"].HostPath, want)
	}
	files, err := m.Prepare(t.Context(), p, mounted, FilesSpec{Container: "c", SubPaths: map[int]SubPath{0: {Volume: "v", Path: "dir"}}})
	if want := filepath.Join(f.pods, "uid-1", "volume-subpaths", "pv", "c", "0"); err != nil || files.SubPaths[0] != want {
		t.Errorf("the subPath is at %s, %v, want %s", files.SubPaths[0], err, want)
	}
	f.client.ClearActions()
	f.mount(p)
	if n := len(f.client.Actions()); n > 0 {
		t.Errorf("mounting again took %d requests", n)
	}
	m = f.withDisk(d, nil)
	f.client.ClearActions()
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
	if n := len(f.client.Actions()); n > 0 {
		t.Errorf("unmounting after a restart took %d requests", n)
	}
}

func TestBlockVolume(t *testing.T) {
	f, c := newFixture(t), csiClaim()
	d := newDisk(t)
	m := f.withDisk(d, nil)
	c.pv.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock)
	c.put(t, f)
	p := blockPod()
	want := map[string]Mounted{"v": {Device: true, HostPath: filepath.Join(f.pods, "uid-1", "volumeDevices", "example.com~disk", "pv")}}
	if diff := cmp.Diff(want, f.mount(p)); diff != "" {
		t.Errorf("Mount() -want +got:\n%s", diff)
	}
	var info unix.Stat_t
	if err := unix.Stat(want["v"].HostPath, &info); err != nil || info.Mode&unix.S_IFMT != unix.S_IFCHR {
		t.Errorf("it is no device: %v, %o", err, info.Mode)
	}
	d.lies = true
	if err := m.Unmount(t.Context(), p.UID); err == nil {
		t.Error("Unmount() succeeded although the device is still bound")
	}
	d.lies = false
	m = f.withDisk(d, nil)
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
	if _, err := os.Stat(filepath.Join(f.pods, "uid-1")); !os.IsNotExist(err) {
		t.Errorf("the Pod's directory is left: %v", err)
	}
}

// TestSameClaimTwice: both volumes of the Pod share one directory.
func TestSameClaimTwice(t *testing.T) {
	f, c := newFixture(t), csiClaim()
	m := f.withDisk(newDisk(t), nil)
	c.put(t, f)
	second := claimVolume()
	second.Name = "w"
	p := pod(claimVolume(), second)
	mounted := f.mount(p)
	if mounted["v"].HostPath != mounted["w"].HostPath {
		t.Errorf("Mount() = %v", mounted)
	}
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
}

// TestExclusiveClaim: the Manager enforces ReadWriteOncePod for every plugin.
func TestExclusiveClaim(t *testing.T) {
	f, c := newFixture(t), csiClaim()
	m := f.withDisk(newDisk(t), nil)
	c.pv.Spec.AccessModes = []v1.PersistentVolumeAccessMode{v1.ReadWriteOncePod}
	c.put(t, f)
	f.mount(claimPod())
	second := claimPod()
	second.UID = "uid-2"
	if _, err := m.Mount(t.Context(), second); err == nil || !strings.HasSuffix(err.Error(), plan.UsedByOther) {
		t.Errorf("Mount() = %v", err)
	}
}

// TestOldRecords have no name of a directory: it is the volume's.
func TestOldRecords(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	f.withDisk(d, nil)
	f.mount(diskPod("a", "x"))
	all, err := f.records.read()
	if err != nil {
		t.Fatal(err)
	}
	for _, rec := range all {
		rec.Name = ""
		if err := f.records.write(rec); err != nil {
			t.Fatal(err)
		}
	}
	m := f.withDisk(d, nil)
	if err := m.Unmount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
}

func TestClaimStats(t *testing.T) {
	f, c := newFixture(t), csiClaim()
	m := f.withDisk(newDisk(t), nil)
	c.put(t, f)
	p := pod(claimVolume(), v1.Volume{Name: "e", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}})
	mounted := f.mount(p)
	if err := os.WriteFile(filepath.Join(mounted["e"].HostPath, "f"), make([]byte, 8192), 0o600); err != nil {
		t.Fatal(err)
	}
	var ephemeral, claimed VolumeStats
	for _, v := range m.Stats(t.Context())[p.UID] {
		if v.Ephemeral {
			ephemeral = v
		} else {
			claimed = v
		}
	}
	if used := ptr.Deref(ephemeral.UsedBytes, 0); ephemeral.Name != "e" || used < 8192 || used > 1<<20 || ephemeral.PVCRef != nil {
		t.Errorf("emptyDir: %+v, %d bytes", ephemeral, used)
	}
	if size := ptr.Deref(claimed.CapacityBytes, 0); claimed.Name != "v" || size != 1<<20 || claimed.PVCRef.Name != "claim" {
		t.Errorf("claim: %+v, %d bytes", claimed, size)
	}
	at := claimed.Time
	if again := m.Stats(t.Context())[p.UID]; len(again) != 2 || again[0].Time.Sub(at.Time) > time.Minute {
		t.Errorf("Stats() = %v", again)
	}
}
