//go:build linux

package teardown

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/host/rootdir"
)

// TestRemoveCgroups leaves the Pods of another node agent alone.
func TestRemoveCgroups(t *testing.T) {
	root := t.TempDir()
	mkdirs(t, root, "kubepods/podours/c1", "kubepods/burstable/podours2", "kubepods/besteffort/podtheirs/c1")
	if err := removeCgroups([]string{root}, []string{"ours", "ours2"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"kubepods", "kubepods/besteffort", "kubepods/besteffort/podtheirs", "kubepods/besteffort/podtheirs/c1"}, below(t, root)); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if err := removeCgroups([]string{root}, []string{"theirs"}); err != nil {
		t.Fatal(err)
	}
	if left := below(t, root); len(left) > 0 {
		t.Errorf("after the last Pod, %v are left", left)
	}
	mkdirs(t, root, "kubepods/burstable", "kubepods/besteffort")
	if err := removeCgroups([]string{root}, nil); err != nil {
		t.Fatal(err)
	}
	if left := below(t, root); len(left) > 0 {
		t.Errorf("without any Pod, %v are left", left)
	}
}

func TestRemovePodLogs(t *testing.T) {
	root := t.TempDir()
	pods, containers := filepath.Join(root, "pods"), filepath.Join(root, "containers")
	mkdirs(t, root, "pods/ns_web_uid-1/c", "pods/ns_other_uid-2/c", "containers")
	for link, pod := range map[string]string{"ours.log": "ns_web_uid-1", "theirs.log": "ns_other_uid-2"} {
		if err := os.Symlink(filepath.Join(pods, pod, "c", "0.log"), filepath.Join(containers, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removePodLogs(pods, []string{"uid-1"}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"containers", "containers/theirs.log", "pods", "pods/ns_other_uid-2", "pods/ns_other_uid-2/c"}, below(t, root)); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
}

// TestKnownPods: a Pod that was stopped is known until it is purged, though its directory is gone.
func TestKnownPods(t *testing.T) {
	dir := t.TempDir()
	root := rootdir.Dirs{Root: filepath.Join(dir, "root"), Data: filepath.Join(dir, "data")}
	mkdirs(t, dir, "data")
	if err := root.Prepare(); err != nil {
		t.Fatal(err)
	}
	mkdirs(t, root.Root, "pods/running")
	if err := KnownPods(root).Stopped([]string{"ended"}); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root.Root, "pods")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ended", "running"}, KnownPods(root).UIDs()); diff != "" {
		t.Errorf("-want, +got:\n%s", diff)
	}
	if others := KnownPods(rootdir.Dirs{Root: root.Root, Data: filepath.Join(dir, "other")}); len(others.UIDs()) > 0 {
		t.Errorf("the Pods of another node are known: %v", others.UIDs())
	}
	none := KnownPods(rootdir.Dirs{Root: filepath.Join(dir, "none"), Data: filepath.Join(dir, "none")})
	if err := none.Stopped(nil); err != nil || len(none.UIDs()) > 0 {
		t.Errorf("without a directory: %v, %v", none.UIDs(), err)
	}
}

func mkdirs(t *testing.T, root string, dirs ...string) {
	t.Helper()
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

func below(t *testing.T, root string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(root, func(path string, _ os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(root, path); rel != "." {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}
