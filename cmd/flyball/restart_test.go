//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRestart restarts a process that has changed its directory and taken the proxy out of its environment.
func TestRestart(t *testing.T) {
	const child, dir = "FLYBALL_TEST_RESTART", "/usr"
	if os.Getenv(child) != "" {
		if isRestarted() {
			now, err := os.Getwd()
			_, again := os.LookupEnv(restartedEnv)
			fmt.Println("restarted", os.Getpid(), now, err, os.Getenv("HTTPS_PROXY"), again)
			os.Exit(0)
		}
		again, err := restart([]string{"HTTPS_PROXY=http://192.0.2.1:3128"})
		if err := errors.Join(err, os.Chdir("/")); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Fatalf("a lock would survive: descriptor flags %d, %v", flags, err)
		}
		again(errors.New("no space left"))
		t.Fatal("it returned")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRestart$")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("restarted %d %s <nil> http://192.0.2.1:3128 false\n", cmd.Process.Pid, dir)
	if err != nil || !strings.Contains(string(out), want) {
		t.Errorf("the process ended with %v and wrote %q, want %q", err, out, want)
	}
}
