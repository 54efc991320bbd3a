//go:build linux

package volumes

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	containerdmount "github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func localClaim(path string) claimPair {
	c := newClaim(v1.PersistentVolumeSource{Local: &v1.LocalVolumeSource{Path: path}})
	c.pv.Spec.NodeAffinity = affinity("node-1")
	return c
}

// withClaim is a fixture whose API server has the claim.
func withClaim(t *testing.T, c claimPair) *fixture {
	t.Helper()
	f := newFixture(t)
	f.withDisk(newDisk(t), nodeWithLabel)
	c.put(t, f)
	return f
}

func TestLocalDirectory(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := withClaim(t, localClaim(link))
	p := claimPod()
	p.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](1234)}
	mounted := f.mount(p)["v"]
	if want := filepath.Join(f.pods, "uid-1", "volumes", "kubernetes.io~local-volume", "pv"); mounted.HostPath != want {
		t.Errorf("HostPath = %s, want %s", mounted.HostPath, want)
	}
	f.mount(p) // again
	if n := len(mountsBelow(t, filepath.Join(f.pods, "uid-1"))); n != 1 {
		t.Errorf("%d mounts, want one", n)
	}
	info, err := os.Stat(filepath.Join(mounted.HostPath, "file"))
	if err != nil || info.Mode().Perm() != 0o660 || info.Sys().(*syscall.Stat_t).Gid != 1234 {
		t.Errorf("the file has %v, want that of the fsGroup: %v", info, err)
	}
	if err := f.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(dir, "file"); got != "precious" {
		t.Errorf("after Unmount the file has %q", got)
	}
}

// emptyExt4 is a file system of 16 MiB, made with go-diskfs.
func emptyExt4(t *testing.T) []byte {
	t.Helper()
	packed, err := os.Open("testdata/ext4.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer packed.Close()
	unpacked, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// TestLocalDevice mounts what is on a block device, or gives the device itself to containers.
func TestLocalDevice(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, emptyExt4(t), 0o600); err != nil {
		t.Fatal(err)
	}
	loop, err := containerdmount.SetupLoop(image, containerdmount.LoopParams{Autoclear: true})
	if err != nil {
		t.Skip("no loop devices here: ", err)
	}
	defer loop.Close()
	c := localClaim(loop.Name())
	f := withClaim(t, c)
	first, second := claimPod(), claimPod()
	second.UID = "uid-2"
	first.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](1234)}
	one, two := f.mount(first)["v"].HostPath, f.mount(second)["v"].HostPath
	if err := os.WriteFile(filepath.Join(one, "file"), []byte("shared"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(two, "file"); got != "shared" {
		t.Errorf("the second Pod reads %q", got)
	}
	if info, err := os.Stat(two); err != nil || info.Sys().(*syscall.Stat_t).Gid != 1234 {
		t.Errorf("the volume is not the fsGroup's: %v, %v", info, err)
	}
	if n := len(mountsBelow(t, f.pods)); n != 2 {
		t.Errorf("%d mounts, want one for each Pod", n)
	}
	for _, p := range []*v1.Pod{first, second} {
		if err := f.Unmount(t.Context(), p.UID); err != nil {
			t.Fatal(err)
		}
	}
	c.pv.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock)
	f = withClaim(t, c)
	if got := f.mount(blockPod())["v"]; got != (Mounted{HostPath: loop.Name(), Device: true}) {
		t.Errorf("Mount() = %+v, want the device", got)
	}
	if size := f.Stats(t.Context())["uid-1"]; len(size) != 1 || ptr.Deref(size[0].CapacityBytes, 0) != 16<<20 {
		t.Errorf("Stats() = %v", size)
	}
}

// TestLocalShared: the second Pod does not take the files from the first one.
func TestLocalShared(t *testing.T) {
	dir := t.TempDir()
	f := withClaim(t, localClaim(dir))
	var events []string
	f.cfg.Event = func(_ *v1.Pod, _, reason, _ string) { events = append(events, reason) }
	first, second := claimPod(), claimPod()
	second.UID = "uid-2"
	first.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](1111)}
	second.Spec.SecurityContext = &v1.PodSecurityContext{FSGroup: ptr.To[int64](2222)}
	f.mount(first)
	f.mount(second)
	info, err := os.Stat(dir)
	if err != nil || info.Sys().(*syscall.Stat_t).Gid != 1111 {
		t.Errorf("the directory is not the first Pod's any more: %v, %v", info, err)
	}
	if len(events) != 1 || events[0] != "AlreadyMountedVolume" {
		t.Errorf("Events %v", events)
	}
}

func TestLocalOptions(t *testing.T) {
	c := localClaim(t.TempDir())
	c.pv.Spec.MountOptions = []string{"ro", "noexec"}
	f := withClaim(t, c)
	dir := f.mount(claimPod())["v"].HostPath
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Flags&(unix.ST_RDONLY|unix.ST_NOEXEC) != unix.ST_RDONLY|unix.ST_NOEXEC {
		t.Errorf("flags %x, %v", fs.Flags, err)
	}
}

func TestLocalRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		reason string
		claim  claimPair
		pod    *v1.Pod
		err    string
	}{
		"Missing": {
			reason: "a directory is not made: the data should be there",
			claim:  localClaim("/does/not/exist"), pod: claimPod(), err: "no such file or directory",
		},
		"File": {
			reason: "the runtime could not mount it as a volume",
			claim:  localClaim(file), pod: claimPod(), err: "local PV pv is neither a directory nor a block device: " + file + " is a File",
		},
		"NoDevice": {
			reason: "a container cannot have a directory as a device",
			claim: func() claimPair {
				c := localClaim(filepath.Dir(file))
				c.pv.Spec.VolumeMode = ptr.To(v1.PersistentVolumeBlock)
				return c
			}(),
			pod: blockPod(), err: "local PV pv has volumeMode Block, but " + filepath.Dir(file) + " is a Directory",
		},
		"Option": {
			reason: "it would be ignored",
			claim: func() claimPair {
				c := localClaim(filepath.Dir(file))
				c.pv.Spec.MountOptions = []string{"discard"}
				return c
			}(),
			pod: claimPod(), err: `a directory cannot have the mount option "discard"`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := withClaim(t, tc.claim)
			if _, err := f.Mount(t.Context(), tc.pod); err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s\nMount() = %v, want %s", tc.reason, err, tc.err)
			}
		})
	}
}

// TestHostPathClaim is the path as it is, and read-only if the Pod says so.
func TestHostPathClaim(t *testing.T) {
	dir := t.TempDir()
	f := withClaim(t, newClaim(v1.PersistentVolumeSource{HostPath: &v1.HostPathVolumeSource{Path: dir, Type: new(v1.HostPathDirectory)}}))
	p := claimPod()
	p.Spec.Volumes[0].PersistentVolumeClaim.ReadOnly = true
	if got := f.mount(p)["v"]; got != (Mounted{HostPath: dir, ReadOnly: true}) {
		t.Errorf("Mount() = %+v", got)
	}
	if stats := f.Stats(t.Context()); len(stats) > 0 {
		t.Errorf("Stats() = %v, want nothing: the path is not the Pod's", stats)
	}
}
