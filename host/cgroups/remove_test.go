//go:build linux

package cgroups

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	libcgroups "github.com/opencontainers/cgroups"
)

func TestRemove(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pod")
	if err := os.MkdirAll(filepath.Join(dir, "container"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time it is missing
		if err := Remove(dir); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory exists after Remove: %v", err)
	}
}

// TestKillWithoutCgroupKill is v1 and kernels before 5.14: the file must not be created, since the
// error of that hides that it is missing.
func TestKillWithoutCgroupKill(t *testing.T) {
	libcgroups.TestMode = true // lets the library read a directory that is no cgroup
	defer func() { libcgroups.TestMode = false }()
	dir := t.TempDir()
	sleeper := exec.Command("/proc/self/exe", "-test.run=TestSleeper")
	sleeper.Env = append(os.Environ(), "FLYBALL_SLEEP=1")
	out, err := sleeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(sleeper.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pid+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := kill(dir); err != nil {
		t.Error(err)
	}
	_ = out.Close() // ends a process that was not killed
	if err := sleeper.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ended with %v, want killed", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); !os.IsNotExist(err) {
		t.Errorf("kill created cgroup.kill: %v", err)
	}
}

// TestSleeper is not a test: it is the process that TestKillWithoutCgroupKill starts. It ends with
// its parent, whose pipe it reads.
func TestSleeper(*testing.T) {
	if os.Getenv("FLYBALL_SLEEP") != "" {
		_, _ = os.Stdin.Read(make([]byte, 1))
	}
}
