package mounts

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOf finds a directory wherever it is bound; devices are found in the tests of storage.
func TestOf(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	source, other, bound := filepath.Join(dir, "source"), filepath.Join(dir, "other"), filepath.Join(dir, "bound")
	for _, path := range []string{source, other, bound} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount(source, bound, "", unix.MS_BIND, ""); err != nil {
		t.Skip("mounting is not allowed here: ", err)
	}
	t.Cleanup(func() { _ = UnmountBelow(dir) })
	if points, err := Of(source); err != nil || !slices.Equal(points, []string{bound}) {
		t.Errorf("Of(source) = %v, %v", points, err)
	}
	if points, err := Of(other); err != nil || len(points) > 0 {
		t.Errorf("Of(other) = %v, %v", points, err)
	}
	if _, err := Of(filepath.Join(dir, "missing")); err == nil {
		t.Error("Of() what is missing: no error")
	}
}
