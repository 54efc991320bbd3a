//go:build linux

package driver

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"flyball.dev/internal/mounts"
)

// TestFullVolume: a volume that is full is nobody else's problem.
func TestFullVolume(t *testing.T) {
	u := newUser(t, Config{Dir: tempDir(t)})
	for _, id := range []string{"a", "b"} {
		u.must(u.create(id, 64*mib))
	}
	a, b := u.publish("a", fileSystem()), u.publish("b", fileSystem())
	u.must(write(filepath.Join(a, "precious"), random(mib)))
	if err := write(filepath.Join(a, "large"), make([]byte, 65*mib)); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing more than fits = %v, want ENOSPC", err)
	}
	u.must(write(filepath.Join(b, "file"), random(20*mib)))
	stats, err := u.NodeGetVolumeStats(context.Background(), &csi.NodeGetVolumeStatsRequest{VolumeId: "a", VolumePath: a})
	if err != nil || stats.GetUsage()[0].GetAvailable() > 4*mib || stats.GetUsage()[0].GetUsed() < 40*mib {
		t.Errorf("statistics %v, %v", stats, err)
	}
	all, err := u.List()
	if err != nil || len(all) != 2 || all[0].Used < 64*mib {
		t.Errorf("List() = %+v, %v", all, err)
	}
}

// TestFullDisk: what was promised is there, and more is not promised.
func TestFullDisk(t *testing.T) {
	disk := diskOf(t, 256*mib)
	u := newUser(t, Config{Dir: disk, ReservePercent: 10})
	u.must(u.create("full", 64*mib))
	u.must(u.create("sparse", 64*mib, with("allocation", "sparse")))
	for _, err := range []error{
		u.create("more", 150*mib), u.create("more", 150*mib, with("allocation", "sparse")), u.create("more", 150*mib, asDevice),
	} {
		if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "on node worker has room for") {
			t.Errorf("creating more than fits = %v", err)
		}
	}
	capacity, err := u.GetCapacity(context.Background(), &csi.GetCapacityRequest{})
	if err != nil || capacity.GetAvailableCapacity() < 50*mib || capacity.GetAvailableCapacity() > 100*mib {
		t.Errorf("GetCapacity() = %v, %v", capacity, err)
	}
	if _, err := u.ControllerExpandVolume(context.Background(), expansion("full", 300*mib)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("expanding by more than fits = %v", err)
	}
	target := u.publish("full", fileSystem())
	if err := write(filepath.Join(disk, "other"), make([]byte, 256*mib)); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("filling the disk = %v", err)
	}
	data := random(45 * mib)
	u.must(write(filepath.Join(target, "file"), data))
	u.unpublish("full")
	u.wantFile(filepath.Join(u.publish("full", fileSystem()), "file"), data)
	if err := u.create("more", 64*mib); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("creating on a full disk = %v", err)
	}
	if left, err := u.everything(); err != nil || len(left) != 2 {
		t.Errorf("after refusals there are %v, %v", left, err)
	}
}

func expansion(id string, size int64) *csi.ControllerExpandVolumeRequest {
	return &csi.ControllerExpandVolumeRequest{VolumeId: id, CapacityRange: &csi.CapacityRange{RequiredBytes: size}}
}

// TestSnapshots: a snapshot of a mounted volume has all that was written before, and goes where it
// is wanted, however blocks are copied.
func TestSnapshots(t *testing.T) {
	for name, config := range map[string]func(t *testing.T) Config{
		"copy":   func(t *testing.T) Config { return Config{Dir: diskOf(t, 900*mib)} },
		"shared": func(t *testing.T) Config { return Config{Dir: diskOf(t, 900*mib, "mkfs.xfs", "-q", "-m", "reflink=1")} },
	} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, config(t))
			u.must(u.create("a", 64*mib))
			target := u.publish("a", fileSystem())
			data := random(5 * mib)
			u.must(os.WriteFile(filepath.Join(target, "file"), data, 0o600)) // not synced
			for range 2 {
				u.must(u.snapshot("s", "a"))
			}
			u.must(write(filepath.Join(target, "file"), []byte("later"))) // it is not frozen
			u.must(u.create("restored", 100*mib, fromSnapshot("s")))
			u.must(u.create("cloned", 64*mib, fromVolume("a")))
			if err := u.create("smaller", 10*mib, fromSnapshot("s"), func(r *request) { r.CapacityRange.LimitBytes = 20 * mib }); status.Code(err) != codes.OutOfRange {
				t.Errorf("restoring into less = %v", err)
			}
			restored := u.publish("restored", fileSystem()) // beside its origin
			u.wantFile(filepath.Join(restored, "file"), data)
			u.wantFile(filepath.Join(u.publish("cloned", fileSystem()), "file"), []byte("later"))
			u.must(write(filepath.Join(restored, "more"), random(70*mib))) // it has grown
			s, err := u.find(snapshots, "s")
			u.must(err)
			if shares := s.Shared > 0; shares != (name == "shared") {
				t.Errorf("the snapshot shares %d bytes", s.Shared)
			}
			for range 2 {
				_, err := u.DeleteSnapshot(context.Background(), &csi.DeleteSnapshotRequest{SnapshotId: "s"})
				u.must(err)
			}
			for _, id := range []string{"a", "restored", "cloned"} {
				u.unpublish(id)
				u.must(u.delete(id))
			}
			if left, err := u.everything(); err != nil || len(left) > 0 {
				t.Errorf("left are %v, %v", left, err)
			}
		})
	}
}

// TestSnapshotUnderLoad: a snapshot has every write that was acknowledged before, as after a loss of
// power, although a Pod goes on writing.
func TestSnapshotUnderLoad(t *testing.T) {
	u := newUser(t, Config{})
	u.must(u.create("a", 64*mib, asSparse))
	log, err := os.Create(filepath.Join(u.publish("a", fileSystem()), "log"))
	u.must(err)
	var acknowledged atomic.Int64
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := int64(1); ; i++ {
			_, err := log.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
			if err = errors.Join(err, log.Sync()); err != nil {
				stopped <- err
				return
			}
			acknowledged.Store(i)
			select {
			case <-stop:
				stopped <- log.Close()
				return
			default:
			}
		}
	}()
	for i := range 3 {
		name := fmt.Sprint("s", i)
		for before := acknowledged.Load(); acknowledged.Load() < before+10; {
			runtime.Gosched()
		}
		want := acknowledged.Load()
		u.must(u.snapshot(name, "a"))
		u.must(u.create("from-"+name, 0, asSparse, fromSnapshot(name)))
		found, err := os.ReadFile(filepath.Join(u.publish("from-"+name, fileSystem()), "log"))
		u.must(err)
		if rows := int64(len(found) / 8); rows < want || binary.BigEndian.Uint64(found[(want-1)*8:]) != uint64(want) {
			t.Errorf("%d rows in the snapshot, %d were acknowledged", rows, want)
		}
	}
	close(stop)
	u.must(<-stopped)
}

// TestDeviceInUse: bytes that change while they are copied are no snapshot.
func TestDeviceInUse(t *testing.T) {
	u := newUser(t, Config{Dir: diskOf(t, 400*mib)})
	u.must(u.create("a", 20*mib, asDevice))
	target, data := u.publish("a", device()), random(mib)
	file, err := os.OpenFile(target, os.O_WRONLY, 0)
	u.must(err)
	_, err = file.Write(data)
	u.must(errors.Join(err, file.Sync(), file.Close()))
	if err := u.snapshot("s", "a"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a snapshot of a device in use = %v", err)
	}
	u.unpublish("a")
	u.must(u.snapshot("s", "a"))
	u.must(u.create("b", 30*mib, fromSnapshot("s"), asDevice))
	found, err := os.ReadFile(u.publish("b", device()))
	if err != nil || len(found) != 30*mib || !bytes.HasPrefix(found, data) {
		t.Errorf("the copy has %d bytes, %v", len(found), err)
	}
}

// TestExpand: a volume grows under the hands of its Pod, or later.
func TestExpand(t *testing.T) {
	for name, capability := range map[string]*csi.VolumeCapability{"file system": fileSystem(), "device": device()} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, Config{})
			u.must(u.create("a", 64*mib, func(r *request) { r.VolumeCapabilities = []*csi.VolumeCapability{capability} }))
			target, file := u.publish("a", capability), []byte("content")
			sizeOf := func() int64 {
				if capability.GetBlock() != nil {
					device, err := os.Open(target)
					u.must(err)
					defer device.Close()
					size, err := device.Seek(0, 2)
					u.must(err)
					return size
				}
				var stat unix.Statfs_t
				u.must(unix.Statfs(target, &stat))
				u.wantFile(filepath.Join(target, "file"), file)
				return int64(stat.Blocks) * stat.Bsize
			}
			if capability.GetMount() != nil {
				u.must(write(filepath.Join(target, "file"), file))
			}
			for range 2 {
				response, err := u.ControllerExpandVolume(context.Background(), expansion("a", 128*mib))
				if err != nil || response.GetCapacityBytes() != 128*mib || !response.GetNodeExpansionRequired() {
					t.Fatal(response, err)
				}
				_, err = u.NodeExpandVolume(context.Background(), &csi.NodeExpandVolumeRequest{VolumeId: "a", VolumePath: target})
				u.must(err)
			}
			if size := sizeOf(); size < 110*mib {
				t.Errorf("the Pod sees %d bytes", size)
			}
			u.unpublish("a")
			_, err := u.ControllerExpandVolume(context.Background(), expansion("a", 256*mib))
			u.must(err)
			_, err = u.NodeExpandVolume(context.Background(), &csi.NodeExpandVolumeRequest{VolumeId: "a", VolumePath: target})
			if status.Code(err) != codes.FailedPrecondition {
				t.Errorf("expanding what is not staged = %v", err)
			}
			u.publish("a", capability)
			if size := sizeOf(); size < 240*mib {
				t.Errorf("staged again, the Pod sees %d bytes", size)
			}
		})
	}
}

// TestDelete never deletes through a mount, and never what somebody uses.
func TestDelete(t *testing.T) {
	u := newUser(t, Config{})
	u.must(u.create("a", 64*mib))
	file, data := filepath.Join(u.publish("a", fileSystem()), "file"), random(100)
	u.must(write(file, data))
	if err := u.delete("a"); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("deleting a volume in use = %v", err)
	}
	u.wantFile(file, data)
	u.unpublish("a")

	precious := filepath.Join(u.dir, "precious")
	u.must(os.MkdirAll(precious, 0o700))
	u.must(write(filepath.Join(precious, "file"), data))
	v, err := u.find(volumes, "a")
	u.must(err)
	mounted := filepath.Join(v.Path, "mounted")
	u.must(os.Mkdir(mounted, 0o700))
	u.must(unix.Mount(precious, mounted, "", unix.MS_BIND, ""))
	if err := u.delete("a"); err == nil {
		t.Error("deleting through a mount: no error")
	}
	u.wantFile(filepath.Join(precious, "file"), data)
	u.must(mounts.UnmountBelow(u.config.Dir))
	u.must(u.removeUnfinished())
	for _, id := range []string{"a", "never was", "../../" + filepath.Base(u.dir)} {
		u.must(u.delete(id))
	}
	if all, err := u.everything(); err != nil || len(all) > 0 {
		t.Errorf("left are %v, %v", all, err)
	}
	u.wantFile(filepath.Join(precious, "file"), data)
}

// TestPublish: readers cannot write, and one Pod is one Pod.
func TestPublish(t *testing.T) {
	u := newUser(t, Config{})
	u.must(u.create("a", 64*mib))
	reader := fileSystem("noexec")
	reader.AccessMode = mode(csi.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY)
	if err := write(filepath.Join(u.publish("a", reader), "file"), nil); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing as a reader = %v", err)
	}
	u.unpublish("a")
	_, err := u.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{
		VolumeId: "a", StagingTargetPath: u.staging("a"), TargetPath: filepath.Join(u.dir, "target"), VolumeCapability: fileSystem(),
	})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("publishing what is not staged = %v", err)
	}
}

// containerEnv tells a process that it is the container of TestCopiedMounts.
const containerEnv = "FLYBALL_TEST_CONTAINER"

// TestCopiedMounts: some container that has the mounts of the host, as of its start, keeps nobody
// from anything.
func TestCopiedMounts(t *testing.T) {
	if os.Getenv(containerEnv) != "" { // it is the container
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	u := newUser(t, Config{})
	u.must(u.create("a", 64*mib))
	data, later := random(mib), []byte("later")
	u.must(os.WriteFile(filepath.Join(u.publish("a", fileSystem()), "file"), data, 0o600)) // not synced

	container := exec.Command("/proc/self/exe", "-test.run", "^TestCopiedMounts$")
	container.Env = append(os.Environ(), containerEnv+"=1")
	container.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
	stdin, err := container.StdinPipe()
	u.must(err)
	u.must(container.Start()) // returns when the mounts are copied
	t.Cleanup(func() { _ = errors.Join(stdin.Close(), container.Wait()) })

	u.unpublish("a")
	u.must(u.snapshot("s", "a"))
	u.must(u.create("b", 0, fromSnapshot("s")))
	u.wantFile(filepath.Join(u.publish("b", fileSystem()), "file"), data)
	target := u.publish("a", fileSystem()) // the same file system, and not a second one on its image
	u.wantFile(filepath.Join(target, "file"), data)
	u.must(write(filepath.Join(target, "file"), later))
	u.unpublish("a")
	u.must(u.delete("a"))
	if _, err := u.find(volumes, "a"); status.Code(err) != codes.NotFound {
		t.Errorf("the deleted volume: %v", err)
	}
}
