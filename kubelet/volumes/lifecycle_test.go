//go:build linux

package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"flyball.dev/internal/mounts"
	"flyball.dev/kubelet/volumes/internal/mounter"
	"flyball.dev/kubelet/volumes/plan"
)

var errCrash = errors.New("crashed")

// disk is a StagingPlugin: a volume is a file system in memory that is mounted at the staging path and
// bound to the targets. Its state is in the mount table, as that of a driver is in the kernel.
type disk struct {
	t                 *testing.T
	attach, exclusive bool

	mu    sync.Mutex
	calls []string
	// crash is how many steps succeed; each call has one before and one after its effect. crashes are
	// those that did not.
	crash, crashes int
	// lies has Unpublish succeed without doing anything.
	lies bool
}

func newDisk(t *testing.T) *disk { return &disk{t: t, crash: 1 << 20} }

func (*disk) Name() string { return "example.com/disk" }

func (*disk) CanSupport(s Spec) bool {
	return s.Volume.CSI != nil || s.PersistentVolume != nil && s.PersistentVolume.Spec.CSI != nil
}

func (d *disk) Identify(_ context.Context, s Spec) (Volume, error) {
	var handle string
	if s.PersistentVolume != nil {
		handle = s.PersistentVolume.Spec.CSI.VolumeHandle
	} else {
		handle = s.Volume.CSI.Driver
	}
	return Volume{
		Name: v1.UniqueVolumeName(d.Name() + "/" + handle), Attach: d.attach, Stage: true, Exclusive: d.exclusive,
		Attributes: map[string]string{"handle": handle},
	}, nil
}

// call has the effect between two steps.
func (d *disk) call(name string, effect func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.crash--; d.crash < 0 {
		d.crashes++
		return errCrash
	}
	d.calls = append(d.calls, name)
	if err := effect(); err != nil {
		return err
	}
	if d.crash--; d.crash < 0 {
		d.crashes++
		return errCrash
	}
	return nil
}

func (d *disk) crashed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.crash < 0
}

func (d *disk) Stage(_ context.Context, _ Spec, v Volume, path string) error {
	return d.call("stage "+v.Attributes["handle"], func() error {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		return mounter.Tmpfs(path, 1<<20, nil)
	})
}

func (d *disk) Publish(_ context.Context, s Spec, _ Volume, paths Paths) (Published, error) {
	out := Published{Mounted: Mounted{HostPath: paths.Target, Device: s.Block()}}
	return out, d.call("publish "+string(s.Pod.UID), func() error {
		if staged, err := mountinfo.Mounted(paths.Staging); err != nil || !staged {
			d.t.Errorf("published before it was staged: %v", err)
		}
		source := paths.Staging
		if s.Block() { // any device will do
			source = "/dev/null"
			if err := os.WriteFile(paths.Target, nil, 0o600); err != nil {
				return err
			}
		} else if err := os.MkdirAll(paths.Target, 0o755); err != nil {
			return err
		}
		if published, err := mountinfo.Mounted(paths.Target); err != nil || published {
			return err
		}
		return unix.Mount(source, paths.Target, "", unix.MS_BIND, "")
	})
}

func (d *disk) Unpublish(_ context.Context, v Volume, target string) error {
	return d.call("unpublish "+v.Attributes["handle"], func() error {
		if d.lies {
			return nil
		}
		below := filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(target)))) // the Pod's directory
		for _, path := range mountsBelow(d.t, below) {
			if strings.Contains(path, "volume-subpaths") {
				d.t.Errorf("%s is still bound", path)
			}
		}
		return mounts.Unmount(target)
	})
}

func (d *disk) Unstage(_ context.Context, v Volume, path string) error {
	return d.call("unstage "+v.Attributes["handle"], func() error {
		root, _, _ := strings.Cut(path, "/plugins/")
		infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(root))
		if err != nil {
			return err
		}
		var devices []string // of the staged volume, then of all that is published
		for _, info := range infos {
			if device := fmt.Sprint(info.Major, ":", info.Minor); info.Mountpoint == path {
				devices = append([]string{device}, devices...)
			} else if strings.HasPrefix(info.Mountpoint, root+"/pods") {
				devices = append(devices, device)
			}
		}
		if len(devices) > 1 && slices.Contains(devices[1:], devices[0]) {
			d.t.Errorf("%s is unstaged while it is published", path)
		}
		return mounts.Unmount(path)
	})
}

func mountsBelow(t *testing.T, dir string) []string {
	t.Helper()
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, info := range infos {
		paths = append(paths, info.Mountpoint)
	}
	return paths
}

// diskPod is a Pod with a disk.
func diskPod(uid types.UID, handle string) *v1.Pod {
	p := pod(vol(v1.VolumeSource{CSI: &v1.CSIVolumeSource{Driver: handle}}))
	p.UID = uid
	return p
}

// withDisk restarts the fixture's Manager with a plugin.
func (f *fixture) withDisk(d *disk, node func() *v1.Node) *Manager {
	f.plugins, f.node = []Plugin{d}, node
	m := f.restart(filepath.Dir(f.pods))
	f.Manager = m
	return m
}

// gone waits until nothing of any volume is left below the Manager's root.
func gone(t *testing.T, m *Manager) {
	t.Helper()
	root := filepath.Dir(m.pods)
	eventually(t, "all volumes are unstaged", func() bool {
		records, err := m.records.read()
		m.mu.Lock()
		defer m.mu.Unlock()
		return err == nil && len(records) == 0 && len(m.volumes) == 0 && len(mountsBelow(t, root)) == 0
	})
}

// TestSharedVolume: two Pods share what is staged once.
func TestSharedVolume(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	m := f.withDisk(d, nil)
	first, second := diskPod("a", "x"), diskPod("b", "x")
	one, two := f.mount(first)["v"].HostPath, f.mount(second)["v"].HostPath
	if err := os.WriteFile(filepath.Join(one, "file"), []byte("shared"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(two, "file"); got != "shared" {
		t.Errorf("the second Pod reads %q", got)
	}
	f.mount(first) // again: the Pod may have changed
	if err := m.Unmount(t.Context(), first.UID); err != nil {
		t.Fatal(err)
	}
	if got := contentOf(two, "file"); got != "shared" {
		t.Errorf("the second Pod reads %q after the first one ended", got)
	}
	if err := m.Unmount(t.Context(), second.UID); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
	want := []string{"stage x", "publish a", "publish b", "publish a", "unpublish x", "unpublish x", "unstage x"}
	if diff := cmp.Diff(want, d.calls); diff != "" {
		t.Errorf("calls -want +got:\n%s", diff)
	}
}

// TestManyPods come and go at once.
func TestManyPods(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	m := f.withDisk(d, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		p := diskPod(types.UID(fmt.Sprint(i)), fmt.Sprint(i%2))
		wg.Go(func() {
			for range 10 {
				if mounted, err := m.Mount(t.Context(), p); err != nil {
					t.Error(err)
				} else if on, err := mountinfo.Mounted(mounted["v"].HostPath); err != nil || !on {
					t.Errorf("not mounted: %v", err)
				}
				if err := m.Unmount(t.Context(), p.UID); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	gone(t, m)
}

// TestCrash ends the Manager between any two steps of two Pods that share a volume. The next Manager
// finds on the disk what it needs to go on.
func TestCrash(t *testing.T) {
	pods := map[types.UID]*v1.Pod{"a": diskPod("a", "x"), "b": diskPod("b", "x")}
	steps := []string{"mount a", "mount b", "unmount a", "unmount b"}
	for crash, crashed := 0, true; crashed; crash++ {
		t.Run(fmt.Sprint(crash), func(t *testing.T) {
			f, d := newFixture(t), newDisk(t)
			m := f.withDisk(d, nil)
			d.crash = crash
			restart := func() {
				f.stop()
				d.crash = 1 << 20
				m = f.withDisk(d, nil)
			}
			wanted := map[types.UID]bool{}
			for _, step := range steps {
				what, uid, _ := strings.Cut(step, " ")
				wanted[types.UID(uid)] = what == "mount"
				err := do(t.Context(), m, wanted[types.UID(uid)], pods[types.UID(uid)])
				if errors.Is(err, errCrash) {
					restart()
					// The workers of the Pods that the API server has, and those of orphans.
					err = nil
					for uid, w := range wanted {
						err = errors.Join(err, do(t.Context(), m, w, pods[uid]))
					}
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the volume is unstaged, or that crashes", func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return len(m.volumes) == 0 || d.crashed()
			})
			if d.crashed() {
				restart()
			}
			gone(t, m)
			crashed = d.crashes > 0
		})
		if crash > 100 {
			t.Fatal("it always crashes")
		}
	}
}

func do(ctx context.Context, m *Manager, wanted bool, p *v1.Pod) error {
	if !wanted {
		return m.Unmount(ctx, p.UID)
	}
	_, err := m.Mount(ctx, p)
	return err
}

// TestOrphan: an agent that comes back after its Pods were deleted finds them by their records.
func TestOrphan(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	f.withDisk(d, nil)
	f.mount(diskPod("a", "x"))
	m := f.withDisk(d, nil)
	uids, err := m.ListPods()
	if err != nil || !slices.Equal(uids, []types.UID{"a"}) {
		t.Errorf("ListPods() = %v, %v", uids, err)
	}
	if err := m.Unmount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
}

// TestAttachment: nothing is staged before the Node's status says that the volume is attached and that
// it is in use.
func TestAttachment(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	d.attach = true
	node := &v1.Node{}
	var mu sync.Mutex
	m := f.withDisk(d, func() *v1.Node {
		mu.Lock()
		defer mu.Unlock()
		return node.DeepCopy()
	})
	p := diskPod("a", "x")
	waits := func(reason string) {
		t.Helper()
		var e *Error
		if _, err := m.Mount(t.Context(), p); !errors.As(err, &e) || !e.Waiting || !strings.HasSuffix(e.Message, reason) {
			t.Fatalf("Mount() = %v, want it to wait: %s", err, reason)
		}
	}
	waits(plan.NotReported)
	inUse := []v1.UniqueVolumeName{"example.com/disk/x"}
	if <-f.inUse; !slices.Equal(m.VolumesInUse(), inUse) {
		t.Errorf("VolumesInUse() = %v", m.VolumesInUse())
	}
	change := func(status v1.NodeStatus) {
		mu.Lock()
		node.Status = status
		mu.Unlock()
		m.NodeChanged()
		if uid := f.nextChanged(); uid != p.UID {
			t.Errorf("Changed(%s)", uid)
		}
	}
	change(v1.NodeStatus{VolumesInUse: inUse})
	waits(plan.NotAttached)
	change(v1.NodeStatus{VolumesInUse: inUse, VolumesAttached: []v1.AttachedVolume{{Name: inUse[0]}}})
	f.mount(p)
	m.states[p.UID].waiting = m.states[p.UID].waiting.Add(-waitTimeout)
	if m = f.withDisk(d, m.cfg.Node); !slices.Equal(m.VolumesInUse(), inUse) {
		t.Errorf("VolumesInUse() = %v after a restart", m.VolumesInUse())
	}
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
	if names := m.VolumesInUse(); len(names) > 0 {
		t.Errorf("VolumesInUse() = %v in the end", names)
	}
}

// TestWaitsForLong: in the end the user gets to know.
func TestWaitsForLong(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	d.attach = true
	m := f.withDisk(d, func() *v1.Node { return nil })
	p := diskPod("a", "x")
	for _, want := range []bool{true, false} {
		var e *Error
		if _, err := m.Mount(t.Context(), p); !errors.As(err, &e) || e.Waiting != want {
			t.Errorf("Mount() = %v, want an Error with Waiting %v", err, want)
		}
		m.states[p.UID].waiting = m.states[p.UID].waiting.Add(-waitTimeout)
	}
}

func TestReadWriteOncePod(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	d.exclusive = true
	m := f.withDisk(d, nil)
	first, second := diskPod("a", "x"), diskPod("b", "x")
	f.mount(first)
	if _, err := m.Mount(t.Context(), second); err == nil || !strings.HasSuffix(err.Error(), plan.UsedByOther) {
		t.Fatalf("Mount() = %v", err)
	}
	if err := m.Unmount(t.Context(), first.UID); err != nil {
		t.Fatal(err)
	}
	if uid := f.nextChanged(); uid != second.UID {
		t.Errorf("Changed(%s), want the Pod that waits", uid)
	}
	f.mount(second)
	if n := len(slices.DeleteFunc(d.calls, func(c string) bool { return c != "stage x" })); n != 1 {
		t.Errorf("staged %d times: the second Pod wanted it all the time", n)
	}
}

func TestSubPathOfStagedVolume(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	m := f.withDisk(d, nil)
	p := diskPod("a", "x")
	mounted := f.mount(p)
	if _, err := m.Prepare(t.Context(), p, mounted, FilesSpec{Container: "c", SubPaths: map[int]SubPath{0: {Volume: "v", Path: "dir"}}}); err != nil {
		t.Fatal(err)
	}
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
}

// TestStillMounted: nothing is removed as long as the volume is mounted, even if the plugin says that
// it is not.
func TestStillMounted(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	m := f.withDisk(d, nil)
	p := diskPod("a", "x")
	dir := f.mount(p)["v"].HostPath
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.lies = true
	if err := m.Unmount(t.Context(), p.UID); err == nil {
		t.Error("Unmount() succeeded")
	}
	if got := contentOf(dir, "file"); got != "precious" {
		t.Errorf("the file has %q", got)
	}
	d.lies = false
	if err := m.Unmount(t.Context(), p.UID); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
}

// TestPluginGone: a record whose plugin does not exist any more keeps the Pod's files.
func TestPluginGone(t *testing.T) {
	f, d := newFixture(t), newDisk(t)
	f.withDisk(d, nil)
	f.mount(diskPod("a", "x"))
	f.plugins = nil
	m := f.restart(filepath.Dir(f.pods))
	if err := m.Unmount(t.Context(), "a"); err == nil || !strings.Contains(err.Error(), "plugin example.com/disk does not exist any more") {
		t.Errorf("Unmount() = %v", err)
	}
	m = f.withDisk(d, nil)
	if err := m.Unmount(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	gone(t, m)
}
