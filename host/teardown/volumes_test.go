//go:build linux

package teardown

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"flyball.dev/internal/loop"
	"flyball.dev/internal/mounts"
)

// TestVolumes removes a block volume only when its loop device is free, and nothing through a mount.
func TestVolumes(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("loop devices need root")
	}
	folder, precious := filepath.Join(t.TempDir(), "volumes"), t.TempDir()
	image, mounted := filepath.Join(folder, "pvc", "disk.img"), filepath.Join(folder, "other")
	mkdirs(t, folder, "pvc", "other")
	if err := errors.Join(os.WriteFile(image, make([]byte, 1<<20), 0o600), os.WriteFile(filepath.Join(precious, "file"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	device, err := loop.Attach(image, loop.Options{})
	if err != nil {
		t.Skip("no loop device: ", err)
	}
	device.Close()
	t.Cleanup(func() { _, _ = loop.Detach(image), mounts.Unmount(mounted) })
	if err := removeVolumes([]string{folder}); err == nil {
		t.Error("a volume with a loop device was removed")
	}
	if err := unix.Mount(precious, mounted, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time there is nothing to do
		if err := errors.Join(releaseVolumes([]string{folder}), removeVolumes([]string{folder})); err != nil {
			t.Error(err)
		}
	}
	if found, err := loop.Find(image); err != nil || found != "" {
		t.Errorf("the image still has the device %q, %v", found, err)
	}
	if _, err := os.Stat(filepath.Join(precious, "file")); err != nil {
		t.Error("a file was removed through a mount: ", err)
	}
	if _, err := os.Stat(folder); !os.IsNotExist(err) {
		t.Errorf("the volumes are still there: %v", err)
	}
}
