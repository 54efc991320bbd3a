package instance

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/apis/config/v1alpha1"
)

// TestOneHolder lets many acquire and release the same role at once, which removes the file of the
// lock again and again.
func TestOneHolder(t *testing.T) {
	dir := t.TempDir()
	var holders, acquired atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				l, err := Acquire(dir, Server)
				if err != nil {
					continue
				}
				if n := holders.Add(1); n > 1 {
					t.Errorf("%d hold the role", n)
				}
				acquired.Add(1)
				runtime.Gosched()
				holders.Add(-1)
				l.Release()
			}
		})
	}
	all.Wait()
	if acquired.Load() == 0 {
		t.Error("nobody ever held the role")
	}
}

func TestAcquire(t *testing.T) {
	dir := t.TempDir()
	if got := Running(dir, Up); got != nil {
		t.Errorf("Running() = %v before anything ran", got)
	}
	server, err := Acquire(dir, Server)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{os.Getpid()}, Running(dir, Up)); diff != "" {
		t.Errorf("Running(): -want, +got:\n%s", diff)
	}
	for _, role := range []Role{Server, Up} {
		var running *RunningError
		if _, err := Acquire(dir, role); !errors.As(err, &running) || running.PID != os.Getpid() {
			t.Errorf("beside a server, Acquire(%s) = %v", role, err)
		}
	}
	agent, err := Acquire(dir, Agent)
	if err != nil {
		t.Fatalf("an agent may run beside a server: %v", err)
	}
	if err := agent.Record(v1alpha1.FlyballConfiguration{DataDir: "/somewhere"}); err != nil {
		t.Fatal(err)
	}
	server.Release()
	agent.Release()
	up, err := Acquire(dir, Up)
	if err != nil {
		t.Fatalf("after both were released: %v", err)
	}
	up.Release()
	if c, err := Recorded(dir); err != nil || c.DataDir != "/somewhere" {
		t.Errorf("Recorded() = %+v, %v", c, err)
	}
	if err := os.WriteFile(recordFile(dir), []byte("dataDir: [/somewhere"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := Recorded(dir); err == nil || !strings.Contains(err.Error(), recordFile(dir)) || c.DataDir != "" {
		t.Errorf("of a damaged file, Recorded() = %+v, %v, want an error that names it", c, err)
	}
	if c, err := Recorded(t.TempDir()); err != nil || c.DataDir != "" {
		t.Errorf("before the first start, Recorded() = %+v, %v", c, err)
	}
}

func TestTerminate(t *testing.T) {
	tests := map[string]struct {
		reason string
		script string
	}{
		"Polite":   {"A process that ends when asked is given the time.", "echo; exec sleep 60"},
		"Stubborn": {"A process that does not is killed.", "trap '' TERM; echo; exec sleep 60"},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), "sh", "-c", tc.script)
			out, err := cmd.StdoutPipe()
			if err == nil {
				err = cmd.Start()
			}
			if err == nil {
				_, err = out.Read(make([]byte, 1)) // until the trap is set
			}
			if err != nil {
				t.Fatal(err)
			}
			go func() { _ = cmd.Wait() }()
			if err := Terminate(t.Context(), cmd.Process.Pid, 300*time.Millisecond); err != nil {
				t.Errorf("%s\nTerminate() = %v", tc.reason, err)
			}
		})
	}
	if err := Terminate(t.Context(), 1<<22-1, time.Second); err != nil {
		t.Errorf("a process that is gone: %v", err)
	}
}
