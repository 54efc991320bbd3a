package xfs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"flyball.dev/internal/loop"
)

// TestFormat shows new file systems to xfs_repair, to the kernel, and to xfs_repair again after the
// kernel has written to them and grown them.
func TestFormat(t *testing.T) {
	for name, size := range map[string]int64{
		"the smallest": MinSize, "odd": 100<<20 + 12345, "1 GiB": 1 << 30, "3 GiB": 3 << 30, "10 TiB": 10 << 40,
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk.img")
			file, err := os.Create(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if err := unix.Ftruncate(int(file.Fd()), size); err != nil {
				t.Skip("the file system here has no files of this size: ", err)
			}
			if err := Format(file, size); err != nil {
				t.Fatal(err)
			}
			check(t, path)
			if os.Geteuid() != 0 {
				t.Skip("mounting needs root")
			}
			dir := t.TempDir()
			grown := min(2*size, 12<<40)
			mounted(t, path, dir, func() {
				for i := range 200 {
					sub := filepath.Join(dir, fmt.Sprint(i))
					if err := os.Mkdir(sub, 0o700); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(filepath.Join(sub, "f"), make([]byte, 50_000), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			})
			check(t, path)
			if err := file.Truncate(grown); err != nil {
				t.Fatal(err)
			}
			mounted(t, path, dir, func() {
				for range 2 { // the second time there is nothing to do
					if err := Grow(dir, grown); err != nil {
						t.Fatal(err)
					}
				}
				var stat unix.Statfs_t
				if err := unix.Statfs(dir, &stat); err != nil || int64(stat.Blocks)*stat.Bsize < grown*8/10 {
					t.Errorf("%d blocks, %v after growing to %d bytes", stat.Blocks, err, grown)
				}
			})
			check(t, path)
		})
	}
	if err := Format(nil, MinSize-1); err == nil {
		t.Error("Format() of less than the smallest size: no error")
	}
}

// mounted runs f while the image is mounted at dir.
func mounted(t *testing.T, image, dir string, f func()) {
	t.Helper()
	device, err := loop.Attach(image, loop.Options{Autoclear: true})
	if err != nil {
		t.Skip("there are no loop devices here: ", err)
	}
	defer device.Close()
	if err := unix.Mount(device.Name(), dir, "xfs", 0, ""); err != nil {
		t.Fatal("mounting: ", err)
	}
	defer func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Fatal(err)
		}
	}()
	f()
}

// check runs xfs_repair without changing anything, where there is one.
func check(t *testing.T, image string) {
	t.Helper()
	if _, err := exec.LookPath("xfs_repair"); err != nil {
		return
	}
	if out, err := exec.Command("xfs_repair", "-n", "-f", image).CombinedOutput(); err != nil {
		t.Errorf("xfs_repair: %v\n%s", err, out)
	}
}
