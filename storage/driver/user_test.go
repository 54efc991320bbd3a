//go:build linux

package driver

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"

	"flyball.dev/internal/loop"
	"flyball.dev/internal/mounts"
	"flyball.dev/internal/xfs"
)

const mib = 1 << 20

// user does with a driver what a provisioner and a kubelet do.
type user struct {
	*testing.T
	*Driver
	dir string
}

func newUser(t *testing.T, config Config) *user {
	t.Helper()
	needRoot(t)
	dir := memory(t)
	if config.Dir == "" {
		config.Dir = filepath.Join(dir, "base")
	}
	config.NodeName, config.ReservePercent = "worker", max(1, config.ReservePercent)
	u := &user{T: t, Driver: New(config), dir: dir}
	t.Cleanup(func() {
		all, err := u.List()
		for _, v := range all {
			if v.Block {
				err = errors.Join(err, mounts.UnmountBelow(dir), loop.Detach(v.Image()))
			}
		}
		if err != nil {
			t.Error(err)
		}
	})
	return u
}

type request = csi.CreateVolumeRequest

func (u *user) create(name string, size int64, changes ...func(*request)) error {
	r := &request{
		Name: name, VolumeCapabilities: []*csi.VolumeCapability{fileSystem()},
		CapacityRange: &csi.CapacityRange{RequiredBytes: size}, Parameters: map[string]string{},
	}
	for _, change := range changes {
		change(r)
	}
	response, err := u.CreateVolume(context.Background(), r)
	if err == nil && (response.GetVolume().GetVolumeId() != name || response.GetVolume().GetCapacityBytes() < size) {
		u.Errorf("CreateVolume() = %v", response)
	}
	return err
}

func asDevice(r *request) { r.VolumeCapabilities = []*csi.VolumeCapability{device()} }

func fromSnapshot(id string) func(*request) {
	return func(r *request) {
		r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
			Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: id},
		}}
	}
}

func fromVolume(id string) func(*request) {
	return func(r *request) {
		r.VolumeContentSource = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
			Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: id},
		}}
	}
}

func with(key, value string) func(*request) {
	return func(r *request) { r.Parameters[key] = value }
}

func (u *user) must(err error) {
	u.Helper()
	if err != nil {
		u.Fatal(err)
	}
}

func (u *user) staging(id string) string { return filepath.Join(u.dir, "staging-"+id) }

// publish returns where a Pod finds the volume.
func (u *user) publish(id string, capability *csi.VolumeCapability) string {
	u.Helper()
	target := filepath.Join(u.dir, "target-"+id)
	for range 2 { // the second time there is nothing to do
		_, err := u.NodeStageVolume(context.Background(), &csi.NodeStageVolumeRequest{
			VolumeId: id, StagingTargetPath: u.staging(id), VolumeCapability: capability,
		})
		u.must(err)
		_, err = u.NodePublishVolume(context.Background(), &csi.NodePublishVolumeRequest{
			VolumeId: id, StagingTargetPath: u.staging(id), TargetPath: target, VolumeCapability: capability,
		})
		u.must(err)
	}
	return target
}

func (u *user) unpublish(id string) {
	u.Helper()
	for range 2 {
		_, err := u.NodeUnpublishVolume(context.Background(), &csi.NodeUnpublishVolumeRequest{
			VolumeId: id, TargetPath: filepath.Join(u.dir, "target-"+id),
		})
		u.must(err)
		_, err = u.NodeUnstageVolume(context.Background(), &csi.NodeUnstageVolumeRequest{VolumeId: id, StagingTargetPath: u.staging(id)})
		u.must(err)
	}
	if _, err := os.Stat(filepath.Join(u.dir, "target-"+id)); !os.IsNotExist(err) {
		u.Errorf("the target is still there: %v", err)
	}
}

func (u *user) delete(id string) error {
	_, err := u.DeleteVolume(context.Background(), &csi.DeleteVolumeRequest{VolumeId: id})
	return err
}

func (u *user) snapshot(name, volume string) error {
	_, err := u.CreateSnapshot(context.Background(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: volume})
	return err
}

// write writes a file, and fails when it did not reach the disk.
func write(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	return errors.Join(err, file.Sync(), file.Close())
}

func random(size int) []byte {
	data := make([]byte, size)
	_, _ = rand.Read(data)
	return data
}

func (u *user) wantFile(path string, want []byte) {
	u.Helper()
	if found, err := os.ReadFile(path); err != nil || !bytes.Equal(found, want) {
		u.Errorf("%s has other content: %d bytes, %v", path, len(found), err)
	}
}

// memory returns a directory in memory: processes die here, not disks, and waiting for one is slow.
func memory(t *testing.T) string {
	t.Helper()
	dir := tempDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Skip("mounting is not allowed here: ", err)
	}
	t.Cleanup(func() { _ = mounts.Unmount(dir) })
	return dir
}

// diskOf returns a directory on a disk of its own, formatted by mkfs or else by us.
func diskOf(t *testing.T, size int64, mkfs ...string) string {
	t.Helper()
	needRoot(t)
	dir := tempDir(t)
	path := filepath.Join(memory(t), "disk.img")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(size); err != nil {
		t.Fatal(err)
	}
	kind := "xfs"
	if len(mkfs) == 0 {
		err = xfs.Format(file, size)
	} else if _, missing := exec.LookPath(mkfs[0]); missing != nil {
		t.Skip("this machine cannot make such a file system: ", missing)
	} else {
		kind = strings.TrimPrefix(mkfs[0], "mkfs.")
		err = exec.Command(mkfs[0], append(mkfs[1:], path)...).Run()
	}
	if err != nil {
		t.Fatal(err)
	}
	disk, err := loop.Attach(path, loop.Options{Autoclear: true})
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	err = unix.Mount(disk.Name(), dir, kind, 0, "prjquota")
	if errors.Is(err, unix.EINVAL) { // the kernel has none
		err = unix.Mount(disk.Name(), dir, kind, 0, "")
	}
	if err != nil {
		t.Skip("this kernel does not mount it: ", err)
	}
	t.Cleanup(func() { _ = mounts.Unmount(dir) })
	return dir
}
