//go:build linux

package containerd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// TestPidsWith: of two processes with our arguments, the one of another user is none of ours.
func TestPidsWith(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to run a process as somebody else")
	}
	config := filepath.Join(t.TempDir(), "config.toml")
	begin := func(uid uint32) int {
		cmd := exec.Command("/bin/sh", "-c", "read line", "sh", "--config", config)
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: true}}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
		line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "cmdline"))
		if err != nil || !bytes.Contains(line, []byte(config)) {
			t.Fatalf("the command line is %q, %v", line, err)
		}
		return cmd.Process.Pid
	}
	ours, _ := begin(0), begin(65534)
	got, err := pidsWith("--config", config)
	if err != nil || !slices.Equal(got, []int{ours}) {
		t.Errorf("pidsWith() = %v, %v, want %d", got, err, ours)
	}
}
