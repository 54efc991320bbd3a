//go:build linux

package propagation

import (
	"os"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

func TestPrivate(t *testing.T) {
	mount := func(point, optional string) *mountinfo.Info {
		return &mountinfo.Info{Mountpoint: point, Optional: optional}
	}
	for name, tc := range map[string]struct {
		reason string
		mounts []*mountinfo.Info
		want   []string
	}{
		"Shared":  {"systemd has done it", []*mountinfo.Info{mount("/", "shared:1"), mount("/data", "shared:2")}, nil},
		"Private": {"each mount once", []*mountinfo.Info{mount("/", "")}, []string{"/"}},
		"Slave":   {"what only receives is not shared", []*mountinfo.Info{mount("/", "master:1")}, []string{"/"}},
		"Peer":    {"what receives may be shared as well", []*mountinfo.Info{mount("/", "shared:5 master:1")}, nil},
		"DataDir": {"a disk of its own", []*mountinfo.Info{mount("/", "shared:1"), mount("/data", ""), mount("/database", "")}, []string{"/data"}},
		"Hidden":  {"the later mount counts", []*mountinfo.Info{mount("/", "shared:1"), mount("/data", ""), mount("/data", "shared:2")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, private(tc.mounts, []string{"/data/kubelet"}), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
		})
	}
}

// TestShare in a mount namespace of its own.
func TestShare(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // not unlocked: the thread ends with the goroutine, and the namespace with it
		if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
			t.Errorf("creating a mount namespace: %v", err)
			return
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Errorf("making mounts private: %v", err)
			return
		}
		if err := Share(t.TempDir()); err != nil {
			t.Error(err)
		}
		mounts, err := mountinfo.GetMounts(nil)
		if left := private(mounts, []string{"/proc"}); err != nil || len(left) > 0 {
			t.Errorf("still private: %q (%v)", left, err)
		}
	}()
	<-done
}
