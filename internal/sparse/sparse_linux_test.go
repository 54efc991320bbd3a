package sparse

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCopy: the second copy of a file that changed is equal to it, too.
func TestCopy(t *testing.T) {
	in, out := create(t, "in"), create(t, "out")
	const size = 8 << 20
	if err := Extend(in, size, true); err != nil {
		t.Skip("the file system here does not allocate in advance: ", err)
	}
	write := func(at int64, length int, value byte) {
		if _, err := in.WriteAt(bytes.Repeat([]byte{value}, length), at); err != nil {
			t.Fatal(err)
		}
	}
	steps := []struct {
		reason string
		change func()
	}{
		{"nothing but holes", func() {}},
		{"data at the start, in the middle of a piece, and at the end", func() {
			write(0, 10, 1)
			write(3<<20+5000, 2<<20, 2)
			write(size-1, 1, 3)
		}},
		{"a few bytes changed", func() { write(4<<20, 3, 4) }},
		{"data became a hole", func() {
			if err := fallocate(in, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 3<<20, 2<<20); err != nil {
				t.Skip("the file system here has no holes: ", err)
			}
		}},
		{"larger", func() {
			if err := Extend(in, size+12345, false); err != nil {
				t.Fatal(err)
			}
		}},
	}
	for _, step := range steps {
		step.change()
		if err := Copy(context.Background(), out, in); err != nil {
			t.Fatal(step.reason, err)
		}
		wanted, _ := os.ReadFile(in.Name())
		if found, err := os.ReadFile(out.Name()); err != nil || !bytes.Equal(found, wanted) {
			t.Errorf("%s: the copy differs, %v", step.reason, err)
		}
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(out.Fd()), &stat); err != nil || stat.Blocks*512 > 3<<20 {
		t.Errorf("the copy takes %d blocks, %v", stat.Blocks, err)
	}
	stopped, stop := context.WithCancel(context.Background())
	stop()
	if err := Copy(stopped, out, in); !errors.Is(err, context.Canceled) {
		t.Errorf("Copy() when it is not wanted any more = %v", err)
	}
	if err := Extend(in, 1, false); err != nil {
		t.Error(err)
	}
	if info, _ := in.Stat(); info.Size() != size+12345 {
		t.Errorf("Extend() made the file smaller: %d", info.Size())
	}
}

func create(t *testing.T, name string) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}
