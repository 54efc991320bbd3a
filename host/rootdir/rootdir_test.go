//go:build linux

package rootdir

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"flyball.dev/host/propagation"
)

// temp has links resolved, as the mount table has them.
func temp(t *testing.T) Dirs {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d := Dirs{Root: filepath.Join(dir, "lib", "kubelet"), Data: filepath.Join(dir, "data")}
	write(t, d.Data, "./")
	return d
}

// write makes files; a path that ends in / is a directory.
func write(t *testing.T, dir string, paths ...string) {
	t.Helper()
	for _, path := range paths {
		full := filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(path, "/") {
			if err := os.MkdirAll(full, 0o755); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(full, []byte(path), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// files are the files and links in dir, by their paths.
func files(t *testing.T, dir string) []string {
	t.Helper()
	found := []string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			found = append(found, rel)
		}
		return err
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}

// earlier is what an earlier version left in the data directory.
var earlier = []string{"pods/uid-1/volumes/kubernetes.io~empty-dir/v/file", "volumes/published-1.json", "seccomp/bank.json", "plugins/p/hash/globalmount/"}

func TestMove(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		root   []string // what is there; nil if it does not exist
	}{
		"Missing": {"A new path.", nil},
		"Empty":   {"Somebody made it.", []string{"./"}},
		"Drivers": {"Of another kubelet, drivers are left.", []string{"plugins/d/csi.sock", "plugins_registry/", "pods/"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := temp(t)
			write(t, d.Link(), earlier...)
			write(t, d.Root, tc.root...)
			open, err := os.Open(filepath.Join(d.Link(), earlier[0]))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			for range 2 { // the second start finds nothing to do
				if err := d.Prepare(); err != nil {
					t.Fatal(err)
				}
			}
			for _, path := range earlier {
				if _, err := os.Stat(filepath.Join(d.Root, path)); err != nil {
					t.Errorf("%s: %v", tc.reason, err)
				}
				if _, err := os.Stat(filepath.Join(d.Link(), path)); err != nil {
					t.Errorf("a container that was made before does not find its files: %v", err)
				}
			}
			now, err := os.Stat(filepath.Join(d.Root, earlier[0]))
			if err != nil {
				t.Fatal(err)
			}
			if before, err := open.Stat(); err != nil || !os.SameFile(before, now) {
				t.Errorf("the file that a Pod has open is another one (%v)", err)
			}
			if got := d.InUse(); !slices.Equal(got, []string{d.Root}) {
				t.Errorf("in use are %q", got)
			}
		})
	}
}

// TestKilled: a start that was killed after any step is continued by the next one.
func TestKilled(t *testing.T) {
	for killed := 0; ; killed++ {
		d := temp(t)
		write(t, d.Link(), earlier...)
		write(t, d.Root, "plugins/d/csi.sock")
		s, err := observe(d)
		if err != nil {
			t.Fatal(err)
		}
		steps, err := plan(s)
		if err != nil {
			t.Fatal(err)
		}
		if killed > len(steps) {
			break
		}
		for _, step := range steps[:killed] {
			if err := step.act(d); err != nil {
				t.Fatal(err)
			}
		}
		// Whoever tears down instead finds all.
		var found []string
		for _, dir := range d.InUse() {
			found = append(found, files(t, dir)...)
		}
		for _, path := range earlier[:3] {
			if !slices.Contains(found, path) {
				t.Errorf("after %d steps, %s is not in use: %q", killed, path, d.InUse())
			}
		}
		if err := d.Prepare(); err != nil {
			t.Errorf("after %d steps: %v", killed, err)
		}
		want := slices.Sorted(slices.Values(append([]string{ownerFile, "plugins/d/csi.sock"}, earlier[:3]...)))
		if diff := cmp.Diff(want, slices.Sorted(slices.Values(files(t, d.Root)))); diff != "" {
			t.Errorf("after %d steps: -want, +got:\n%s", killed, diff)
		}
	}
}

// TestAbandoned: the owner is gone, and so are its files.
func TestAbandoned(t *testing.T) {
	d := temp(t)
	write(t, d.Root, "plugins/d/csi.sock")
	if err := os.WriteFile(filepath.Join(d.Root, ownerFile), []byte(filepath.Join(d.Data, "none")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Prepare(); err != nil {
		t.Fatal(err)
	}
	if owner, err := readOwner(d.Root); err != nil || owner != d.Data {
		t.Errorf("the owner is %q (%v)", owner, err)
	}
	other := Dirs{Root: d.Root, Data: t.TempDir()}
	if err := other.Prepare(); err == nil || !strings.Contains(err.Error(), d.Data) {
		t.Errorf("another node took it: %v", err)
	}
}

// TestChanged: kubelet.rootDir changes, and what others keep in the former one stays there.
func TestChanged(t *testing.T) {
	d := temp(t)
	if err := d.Prepare(); err != nil {
		t.Fatal(err)
	}
	write(t, d.Root, "pods/uid-1/f", "config.json")
	next := Dirs{Root: filepath.Join(d.Data, "elsewhere"), Data: d.Data}
	if err := next.Prepare(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{ownerFile, "pods/uid-1/f"}, files(t, next.Root)); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"config.json"}, files(t, d.Root)); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}

func TestRemove(t *testing.T) {
	for name, tc := range map[string]struct {
		reason  string
		prepare func(t *testing.T, d Dirs)
		want    []string // left in Root
	}{
		"Ours":    {"Nothing is left.", func(t *testing.T, d Dirs) { write(t, d.Root, "pods/uid-1/f", "plugins/d/csi.sock", "volumes/v.json") }, nil},
		"Others'": {"Credentials for registries are the administrator's.", func(t *testing.T, d Dirs) { write(t, d.Root, "pods/uid-1/f", "config.json") }, []string{"config.json"}},
		"Taken": {"Another node has it now.", func(t *testing.T, d Dirs) {
			write(t, d.Root, "pods/uid-1/f")
			if err := os.WriteFile(filepath.Join(d.Root, ownerFile), []byte("/srv/other\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{ownerFile, "pods/uid-1/f"}},
		"NeverMoved": {"An earlier version has run last.", func(t *testing.T, d Dirs) {
			if err := os.Remove(d.Link()); err != nil {
				t.Fatal(err)
			}
			write(t, d.Link(), earlier...)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			d := temp(t)
			if err := d.Prepare(); err != nil {
				t.Fatal(err)
			}
			tc.prepare(t, d)
			for range 2 {
				if err := d.Unmount(); err != nil {
					t.Error(err)
				}
				if err := d.Remove(); err != nil {
					t.Error(err)
				}
			}
			if left := files(t, d.Root); !slices.Equal(left, tc.want) {
				t.Errorf("%s: left are %q, want %q", tc.reason, left, tc.want)
			}
			if _, err := os.Lstat(d.Link()); !os.IsNotExist(err) {
				t.Errorf("%s is left (%v)", d.Link(), err)
			}
			if _, err := os.Stat(d.Root); len(tc.want) == 0 && !os.IsNotExist(err) {
				t.Errorf("%s is left (%v)", d.Root, err)
			}
		})
	}
}

// inMountNamespace runs a test in a mount namespace of its own, in which everything is shared.
func inMountNamespace(t *testing.T, test func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine, and the namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Errorf("creating a mount namespace: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Errorf("making mounts private: %v", err)
			return
		}
		test()
	}()
	<-done
}

func mount(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Error(err)
	}
	if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=64k"); err != nil {
		t.Errorf("mounting a tmpfs: %v", err)
	}
}

// TestMoveMounts: what is mounted below moves along, and is unmounted at its new place.
func TestMoveMounts(t *testing.T) {
	d := temp(t)
	inMountNamespace(t, func() {
		secret := "pods/uid-1/volumes/kubernetes.io~secret/s"
		mount(t, filepath.Join(d.Link(), secret))
		write(t, d.Link(), secret+"/token")
		if err := d.Prepare(); err != nil {
			t.Error(err)
		}
		if got := files(t, d.Root); !slices.Contains(got, secret+"/token") {
			t.Errorf("the mount was lost: %q", got)
		}
		if err := d.Remove(); err == nil || !strings.Contains(err.Error(), "still mounted") {
			t.Errorf("Remove() through a mount = %v", err)
		}
		if got := files(t, d.Root); !slices.Contains(got, secret+"/token") {
			t.Errorf("a file was removed through the mount: %q", got)
		}
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
	})
}

// TestOtherFileSystem: the files stay where they are, and are at Root too.
func TestOtherFileSystem(t *testing.T) {
	d := temp(t)
	inMountNamespace(t, func() {
		mount(t, d.Data)
		write(t, d.Link(), "pods/uid-1/f")
		secret := "pods/uid-1/volumes/kubernetes.io~secret/s"
		mount(t, filepath.Join(d.Link(), secret))
		write(t, d.Link(), secret+"/token")
		write(t, d.Root, "plugins_registry/")
		if err := propagation.Share(d.Data, d.Root); err != nil {
			t.Error(err)
		}
		for range 2 {
			if where, err := d.Check(); err != nil || where != d.Link() && where != d.Root {
				t.Errorf("Check() = %s, %v", where, err)
			}
			if err := d.Prepare(); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff([]string{ownerFile, "pods/uid-1/f", secret + "/token"}, files(t, d.Root)); diff != "" {
			t.Errorf("-want, +got:\n%s", diff)
		}
		// A volume that is unmounted at one path must not keep the other from being removed.
		if err := unix.Unmount(filepath.Join(d.Root, secret), 0); err != nil {
			t.Error(err)
		}
		if err := os.Remove(filepath.Join(d.Link(), secret)); err != nil {
			t.Errorf("the volume is still mounted at the other path: %v", err)
		}
		if err := d.Remove(); err == nil {
			t.Error("it was removed while it is mounted")
		}
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
		if got := files(t, d.Link()); !slices.Contains(got, "pods/uid-1/f") {
			t.Errorf("without purging, files are gone: %q", got)
		}
		// Unmounted, the directory is still taken.
		other := Dirs{Root: d.Root, Data: t.TempDir()}
		if _, err := other.Check(); err == nil {
			t.Error("another node would take the directory")
		}
		if err := d.Prepare(); err != nil { // as after a reboot
			t.Error(err)
		}
		if got := files(t, d.Root); !slices.Contains(got, "pods/uid-1/f") {
			t.Errorf("after a reboot, there is %q", got)
		}
		if err := d.Unmount(); err != nil {
			t.Error(err)
		}
		if err := d.Remove(); err != nil {
			t.Error(err)
		}
		if left := append(files(t, d.Data), files(t, d.Root)...); len(left) > 0 {
			t.Errorf("left are %q", left)
		}
	})
}
