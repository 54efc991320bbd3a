//go:build linux

package containerd

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
)

// TestPidsWith: of the processes with our arguments, neither that of another user nor that of
// another program is ours.
func TestPidsWith(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to run a process as somebody else")
	}
	dir := t.TempDir()
	config, copied := filepath.Join(dir, "config.toml"), filepath.Join(dir, program)
	shell, err := os.ReadFile("/bin/sh")
	// Somebody else has to get at the copy too.
	if err := errors.Join(err, os.WriteFile(copied, shell, 0o755), os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	begin := func(uid uint32, exe string) int {
		cmd := exec.Command(exe, "-c", "read line", "sh", "--config", config)
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, NoSetGroups: true}}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
		// The kernel lets Start return before the new program's command line can be read.
		var line []byte
		err = wait.PollUntilContextTimeout(t.Context(), time.Millisecond, 10*time.Second, true, func(context.Context) (_ bool, err error) {
			line, err = os.ReadFile(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "cmdline"))
			return bytes.Contains(line, []byte(config)), err
		})
		if err != nil {
			t.Fatalf("the command line is %q, %v", line, err)
		}
		return cmd.Process.Pid
	}
	_, _ = begin(65534, copied), begin(0, "/bin/sh")
	ours := begin(0, copied)
	if err := os.Remove(copied); err != nil { // as an upgrade does
		t.Fatal(err)
	}
	got, err := pidsWith(program, "--config", config)
	if err != nil || !slices.Equal(got, []int{ours}) {
		t.Errorf("pidsWith() = %v, %v, want %d", got, err, ours)
	}
}
