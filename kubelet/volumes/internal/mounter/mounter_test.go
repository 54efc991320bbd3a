//go:build linux

package mounter

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestDeviceRefused: only a file system that is there is mounted.
func TestDeviceRefused(t *testing.T) {
	blank := filepath.Join(t.TempDir(), "blank")
	if err := os.WriteFile(blank, make([]byte, 1<<17), 0o600); err != nil {
		t.Fatal(err)
	}
	xfs := filepath.Join(t.TempDir(), "xfs")
	if err := os.WriteFile(xfs, append([]byte("XFSB"), make([]byte, 1<<17)...), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		reason, device string
		fsType         *string
		err            string
	}{
		"Blank":     {reason: "formatting would need a program", device: blank, err: "has no file system (ext4, xfs or btrfs)"},
		"Other":     {reason: "it is the wrong disk, perhaps", device: xfs, fsType: new("ext4"), err: "has xfs, and not ext4"},
		"NoProgram": {reason: "no helper is executed", device: xfs, fsType: new("fuse.sshfs"), err: "has xfs, and not fuse.sshfs"},
		"NoDevice":  {reason: "the kernel says so", device: xfs, fsType: new(""), err: "mounting " + xfs + " as xfs: "},
	} {
		t.Run(name, func(t *testing.T) {
			if err := Device(tc.device, t.TempDir(), tc.fsType, nil); err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s\nDevice() = %v, want %s", tc.reason, err, tc.err)
			}
		})
	}
}
