package driver

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSamePlace(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "kubelet"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("kubelet", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		reason, a, b string
		want         bool
	}{
		"equal":     {"nothing needs to be there", "/nowhere/a", "/nowhere/a", true},
		"link":      {"the directory is the same by another name", "kubelet/mount", "link/mount", true},
		"neighbour": {"another entry of the directory is another place", "kubelet/mount", "link/other", false},
		"elsewhere": {"another directory", "kubelet/mount", "mount", false},
		"unknown":   {"what cannot be read is not the same", "kubelet/mount", "gone/mount", false},
	} {
		a, b := tc.a, tc.b
		if !filepath.IsAbs(a) {
			a, b = filepath.Join(dir, a), filepath.Join(dir, b)
		}
		if got := samePlace(a, b); got != tc.want {
			t.Errorf("%s: %s: got %v", name, tc.reason, got)
		}
	}
}
