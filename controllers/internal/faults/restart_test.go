package faults

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"

	"flyball.dev/controllers/internal/testenv"
)

// TestAPIServerRestarts in the middle of a rollout, by a crash and as asked to. It is not parallel
// to the others, which could not know what failed them.
func TestAPIServerRestarts(t *testing.T) {
	for name, signal := range map[string]syscall.Signal{"Crashes": syscall.SIGKILL, "IsStopped": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			var rollouts []*rollout
			for _, kinds := range env.Groups {
				rollouts = append(rollouts, begin(t, kinds, env.Namespace(t)))
			}
			for _, r := range rollouts {
				// A Pod that was created without a response is created again; the loop then deletes
				// one.
				r.returns = true
				r.image("2")
			}
			for _, r := range rollouts {
				r.until("half way", updated(3))
			}
			restart(t, signal)
			for _, r := range rollouts {
				r.complete("image:1 0", "image:2 12")
			}
		})
	}
}

// restart ends the API server, which is a child of this process, and starts it again as it was
// started.
func restart(t *testing.T, signal syscall.Signal) {
	t.Helper()
	pid, args := apiServer(t)
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, func() error {
		conn, err := net.Dial("tcp", address(t))
		if err == nil {
			conn.Close()
			return errors.New("the API server still listens")
		}
		return nil
	})
	// On SIGTERM it waits a minute for watches, which nothing ends. A supervisor does not wait that
	// long.
	_ = syscall.Kill(pid, syscall.SIGKILL)
	testenv.Eventually(t, func() error { // its parent waits for it: envtest, or we
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d has not ended: %w", pid, err)
		}
		return nil
	})
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	stopAgain = func() { _ = cmd.Process.Signal(syscall.SIGTERM); <-ended }
	transport, err := rest.HTTPClientFor(env.Admin)
	if err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, func() error {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.TrimSuffix(env.Admin.Host, "/")+"/readyz", nil)
		if err != nil {
			return err
		}
		response, err := transport.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("the API server is not ready: %s", response.Status)
		}
		return nil
	})
}

// stopAgain stops the API server that was started here last.
var stopAgain = func() {}

func address(t *testing.T) string {
	t.Helper()
	host, err := url.Parse(env.Admin.Host)
	if err != nil {
		t.Fatal(err)
	}
	return host.Host
}

// apiServer finds the child that listens where env says.
func apiServer(t *testing.T) (pid int, args []string) {
	t.Helper()
	_, port, err := net.SplitHostPort(address(t))
	if err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		args := strings.Split(string(bytes.TrimSuffix(line, []byte{0})), "\x00")
		if filepath.Base(args[0]) != "kube-apiserver" || !strings.Contains(string(line), "--secure-port="+port+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			t.Fatal(err)
		}
		return pid, args
	}
	t.Fatal("looking for the API server: no process listens on port ", port)
	return 0, nil
}
