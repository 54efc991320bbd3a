package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRemoveTree: the mount table may also have been read before something was mounted.
func TestRemoveTree(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir, precious := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(precious, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(dir, "a", "b c") // a container may mount at any path
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(precious, target, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTree(dir); err == nil || !strings.Contains(err.Error(), "b c is still mounted") {
		t.Errorf("RemoveTree() = %v", err)
	}
	if err := removeUnmounted(dir); err == nil || !strings.Contains(err.Error(), "b c: it is a mount point") {
		t.Errorf("removeUnmounted() = %v", err)
	}
	if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
		t.Error(err)
	}
	for i := range 3000 { // more than are read at once
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveAll(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

// TestUnmountBelow spares the directory itself, which may be a mount of the user's.
func TestUnmountBelow(t *testing.T) {
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
	t.Cleanup(func() { _ = UnmountBelow(dir) })
	file := filepath.Join(dir, "a", "precious")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	err := RemoveTree(dir)
	if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, "a", "b")) {
		t.Errorf("RemoveTree() over mounts = %v, want an error that names them", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a file on the mount is gone: %v", err)
	}
	if err := UnmountBelow(filepath.Join(dir, "a")); err != nil {
		t.Error(err)
	}
	if points, err := below(dir); err != nil || !slices.Equal(points, []string{filepath.Join(dir, "a")}) {
		t.Errorf("mounted are %v, %v, want the directory itself", points, err)
	}
	for range 2 { // the second time there is nothing to do
		if err := UnmountBelow(dir); err != nil {
			t.Errorf("UnmountBelow() = %v", err)
		}
		if err := RemoveTree(dir); err != nil {
			t.Errorf("RemoveTree() = %v", err)
		}
	}
}
