//go:build linux

package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// TestRestart restarts a process that has changed its directory and taken the proxy out of its
// environment.
func TestRestart(t *testing.T) {
	const child, dir = "FLYBALL_TEST_RESTART", "/usr"
	if os.Getenv(child) != "" {
		if IsRestarted() {
			now, err := os.Getwd()
			_, kept := os.LookupEnv(restartedEnv)
			fmt.Println("restarted", os.Getpid(), now, err, os.Getenv("HTTPS_PROXY"), kept)
			os.Exit(0)
		}
		restarter, err := NewRestarter(t.Context(), []string{"HTTPS_PROXY=http://192.0.2.1:3128"})
		if err != nil {
			t.Fatal(err)
		}
		t.Chdir("/")
		file, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		if flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Fatalf("a lock would survive: descriptor flags %d, %v", flags, err)
		}
		restarter.Restart(errors.New("no space left"))
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

// TestRestartWhileStopping asks for a restart after the process was asked to stop.
func TestRestartWhileStopping(t *testing.T) {
	const child = "FLYBALL_TEST_RESTART_STOPPING"
	if os.Getenv(child) != "" {
		if IsRestarted() {
			t.Fatal("it came back")
		}
		klog.LogToStderr(true)
		ctx, stop := context.WithCancel(t.Context())
		restarter, err := NewRestarter(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		stop()
		restarter.Restart(errors.New("no space left"))
		t.Fatal("it returned")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestRestartWhileStopping$")
	cmd.Env = append(os.Environ(), child+"=1")
	out, err := cmd.CombinedOutput()
	for _, want := range []string{"] Stopping: no space left\n", "\nError: no space left\n"} {
		if !strings.Contains("\n"+string(out), want) {
			t.Errorf("it wrote %q, want %q", out, want)
		}
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("it ended with %v, want exit code 1", err)
	}
}
