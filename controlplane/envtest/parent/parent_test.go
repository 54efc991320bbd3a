//go:build unix

package parent

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// role says what this process is to be for the test that has started it.
const role = "PARENT_TEST_ROLE"

func TestMain(m *testing.M) {
	switch as := os.Getenv(role); as {
	case "":
		os.Exit(m.Run())
	case "child":
		fmt.Println(Watch(func() { os.Exit(0) }))
		time.Sleep(time.Hour) // until it is killed: a select without cases would be a deadlock where nothing watches
	default: // a parent, which starts a child and stays
		cmd := again("child")
		cmd.Stdout = os.Stdout
		switch as {
		case "nohup":
			signal.Ignore(syscall.SIGHUP)
		case "setsid":
			cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(cmd.Process.Pid)
		_ = cmd.Wait()
		os.Exit(1)
	}
}

func again(as string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), role+"="+as)
	return cmd
}

// A process ends when its parent is killed, unless it was started to go on.
func TestWatch(t *testing.T) {
	for name, c := range map[string]struct {
		reason, as string
		watches    bool
	}{
		"plain":  {"a test suite that is killed takes its programs with it", "plain", true},
		"nohup":  {"is how a shell starts what outlives it", "nohup", false},
		"setsid": {"is how a daemon is started", "setsid", false},
	} {
		t.Run(name, func(t *testing.T) {
			parent := again(c.as)
			out, in, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = out.Close() }()
			parent.Stdout = in
			if err := parent.Start(); err != nil {
				t.Fatal(err)
			}
			_ = in.Close() // the child holds it, too, so it ends when both have
			lines := bufio.NewReader(out)
			var child int
			var watches bool
			for range 2 { // in whichever order
				line, err := lines.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if _, err := fmt.Sscan(line, &child); err != nil {
					watches = strings.TrimSpace(line) == "true"
				}
			}
			if watches != c.watches {
				t.Errorf("%s: it watches: %v, want %v", c.reason, watches, c.watches)
			}
			if err := parent.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = parent.Wait()
			if !watches {
				if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
					t.Errorf("%s: ending the child: %v", c.reason, err)
				}
			}
			if _, err := io.Copy(io.Discard, lines); err != nil { // until the child is gone
				t.Fatal(err)
			}
		})
	}
}
