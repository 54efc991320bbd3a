//go:build linux

package driver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"flyball.dev/internal/loop"
	"flyball.dev/internal/mounts"
	"flyball.dev/internal/xfs"
)

// victimDir tells the process that TestCrash kills where to work.
const victimDir = "FLYBALL_TEST_VICTIM"

// TestCrash kills a process between any two steps of what it does with volumes, again and again.
// After each time, its successor ends the work that was begun, and nothing that had been written is
// lost or left over.
func TestCrash(t *testing.T) {
	if dir := os.Getenv(victimDir); dir != "" {
		u := &user{T: t, Driver: New(Config{NodeName: "worker", Dir: filepath.Join(dir, "base"), ReservePercent: 1}), dir: dir}
		for i := 0; ; i++ {
			u.work(fmt.Sprint(i % 2))
		}
	}
	u := newUser(t, Config{})
	u.must(u.create("precious", 64*mib, asSparse))
	data := random(mib)
	u.must(write(filepath.Join(u.publish("precious", fileSystem()), "file"), data))
	for range 8 {
		victim := exec.Command(os.Args[0], "-test.run", "^TestCrash$")
		victim.Env = append(os.Environ(), victimDir+"="+u.dir)
		u.must(victim.Start())
		time.Sleep(time.Duration(20+rand.IntN(300)) * time.Millisecond)
		u.must(victim.Process.Kill())
		_ = victim.Wait()

		u.Driver = New(u.config)
		u.must(u.recover())
		if left, err := u.list(volumes, unfinished); err != nil || len(left) > 0 {
			t.Fatalf("unfinished are %v, %v", left, err)
		}
		u.wantFile(filepath.Join(u.publish("precious", fileSystem()), "file"), data) // and it is not frozen
		u.must(write(filepath.Join(u.dir, "target-precious", "other"), data))
		u.work("0") // whatever was begun can be ended
		u.work("1")
		if all, err := u.everything(); err != nil || len(all) != 1 {
			t.Fatalf("there are %v, %v, want the precious one", all, err)
		}
		for _, id := range []string{"a0", "a1", "b0", "b1"} {
			if device, err := loop.Find(filepath.Join(u.config.Dir, volumes, id, "disk.img")); device != "" || err != nil {
				t.Fatalf("%s is attached to %s, %v", id, device, err)
			}
		}
	}
}

var asSparse = with(ParameterAllocation, asWritten)

// work does everything once, and checks it.
func (u *user) work(suffix string) {
	a, b, s := "a"+suffix, "b"+suffix, "s"+suffix
	ctx := context.Background()
	u.must(u.create(a, 64*mib, asSparse))
	content := bytes.Repeat([]byte(a), 10_000)
	target := u.publish(a, fileSystem())
	u.must(write(filepath.Join(target, "file"), content))
	u.must(u.snapshot(s, a))
	_, err := u.ControllerExpandVolume(ctx, expansion(a, 80*mib))
	u.must(err)
	_, err = u.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{VolumeId: a, VolumePath: target})
	u.must(err)
	u.must(u.create(b, 0, asSparse, fromSnapshot(s)))
	u.wantFile(filepath.Join(u.publish(b, fileSystem()), "file"), content)
	for _, id := range []string{a, b} {
		u.unpublish(id)
		u.must(u.delete(id))
	}
	_, err = u.DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: s})
	u.must(err)
}

// TestThaw: the next process undoes the freeze of one that was killed.
func TestThaw(t *testing.T) {
	u := newUser(t, Config{})
	u.must(u.create("a", 64*mib))
	target := u.publish("a", fileSystem())
	written := make(chan error, 1)
	err := xfs.Frozen(target, func() error {
		go func() { written <- write(filepath.Join(target, "file"), nil) }()
		return New(u.config).recover()
	})
	u.must(errors.Join(err, <-written))
}

// TestLongCopy: who does not wait for a copy gets it by asking again.
func TestLongCopy(t *testing.T) {
	u := newUser(t, Config{})
	u.must(u.create("a", 64*mib))
	unlock, err := u.locks.lock(context.Background(), "a") // as if it were being copied
	u.must(err)
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	request := &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "a"}
	if _, err := u.CreateSnapshot(gone, request); err == nil || !strings.Contains(err.Error(), "s is still being made") {
		t.Errorf("CreateSnapshot() by a caller that is gone = %v", err)
	}
	unlock()
	_, err = u.CreateSnapshot(context.Background(), request)
	u.must(err)
}

// TestDirectory needs no kernel with quotas; TestProjectQuotas does.
func TestDirectory(t *testing.T) {
	u := newUser(t, Config{})
	asDirectory := with(ParameterType, string(directory))
	u.quota.enabled = func(string) bool { return false }
	if err := u.create("a", mib, asDirectory); err == nil || !strings.Contains(err.Error(), "no project quotas") {
		t.Errorf("a directory without a limit: %v", err)
	}
	limits := map[uint32]int64{}
	u.quota = quotas{
		enabled: func(string) bool { return true },
		assign:  func(string, uint32) error { return nil },
		limit:   func(_ string, project uint32, size int64) error { limits[project] = size; return nil },
		used:    func(string, uint32) (int64, error) { return 5, nil },
	}
	u.testDirectory(asDirectory)
	if limits[firstProject] != 2*mib || limits[firstProject+1] != defaultSize || len(limits) != 2 {
		t.Errorf("limits %v", limits)
	}
	u.unpublish("a")
	u.must(u.delete("a"))
	if limits[firstProject] != 0 {
		t.Errorf("limits after removing %v", limits)
	}
}

func (u *user) testDirectory(asDirectory func(*request)) {
	u.must(u.create("a", mib, asDirectory))
	target, data := u.publish("a", fileSystem("nosuid")), random(1000)
	u.must(write(filepath.Join(target, "file"), data))
	if err := u.delete("a"); err == nil {
		u.Error("removing a directory in use: no error")
	}
	u.must(u.snapshot("s", "a"))
	u.must(write(filepath.Join(target, "file"), nil))
	u.must(u.create("b", 0, fromSnapshot("s"), func(r *request) { r.CapacityRange = nil; delete(r.Parameters, ParameterType) }))
	u.wantFile(filepath.Join(u.publish("b", fileSystem()), "file"), data)
	_, err := u.ControllerExpandVolume(context.Background(), expansion("a", 2*mib))
	u.must(err)
	stats, err := u.NodeGetVolumeStats(context.Background(), &csi.NodeGetVolumeStatsRequest{VolumeId: "a", VolumePath: target})
	if err != nil || stats.GetUsage()[0].GetTotal() != 2*mib {
		u.Errorf("statistics %v, %v", stats, err)
	}
}

// TestProjectQuotas is about the kernel's.
func TestProjectQuotas(t *testing.T) {
	for name, mkfs := range map[string][]string{"xfs": {"mkfs.xfs", "-q"}, "ext4": {"mkfs.ext4", "-q", "-O", "quota,project"}} {
		t.Run(name, func(t *testing.T) {
			u := newUser(t, Config{Dir: diskOf(t, 400*mib, mkfs...)})
			if !u.quota.enabled(u.config.Dir) {
				t.Skip("this kernel has no project quotas")
			}
			u.testDirectory(func(*request) {}) // "auto" chooses it
			err := write(filepath.Join(u.dir, "target-a", "large"), make([]byte, 3*mib))
			if err == nil {
				t.Error("writing more than the limit: no error")
			}
			u.must(mounts.UnmountBelow(u.dir))
		})
	}
}
