package bundle

import (
	"os"
	"path/filepath"
	"testing"
)

// TestComponents reads the versions of programs from the programs: this test stands in for one of
// them.
func TestComponents(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(self, filepath.Join(dir, "runc")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "containerd"), []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"runc": Unknown, "containerd": Unknown, "cni bridge": "missing"}
	for _, p := range (Bundle{Dir: dir}).Components() {
		if w, found := want[p.Name]; found && p.Version != w {
			t.Errorf("%s is %q, want %q", p.Name, p.Version, w)
		}
		delete(want, p.Name)
	}
	if len(want) > 0 {
		t.Errorf("there are no versions of %v", want)
	}
}
