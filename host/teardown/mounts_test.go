//go:build linux

package teardown

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMounts(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := t.TempDir()
	for _, sub := range []string{"a", "a/b"} {
		path := filepath.Join(dir, sub)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", path, "tmpfs", 0, "size=64k"); err != nil {
			t.Skip("mounting is not allowed here: ", err)
		}
	}
	t.Cleanup(func() { _ = unmount(dir) })
	file := filepath.Join(dir, "a", "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	err := removeTree(dir)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "a", "b")) {
		t.Errorf("removeTree() over mounts = %v, want an error that names them", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file on the mount is gone: %v", err)
	}
	for range 2 { // the second time there is nothing to do
		if err := unmount(dir); err != nil {
			t.Errorf("unmount() = %v", err)
		}
		if err := removeTree(dir); err != nil {
			t.Errorf("removeTree() = %v", err)
		}
	}
}
