//go:build linux

package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"flyball.dev/host/instance"
	"flyball.dev/host/logging"
	"flyball.dev/host/progress"
	"flyball.dev/host/status"
)

// listeningFD is the descriptor that a child in the background closes once its status is served.
const listeningFD = 3

// maxError is how many bytes of a dead child's standard error are shown.
const maxError = 4096

// readyTimeout is how long --detach waits for the node. A start that takes longer goes on in the
// background.
const readyTimeout = 5 * time.Minute

// BackgroundFlag is the flag that a child in the background is started with.
const BackgroundFlag = "background"

// Detach runs the program in a process of its own in the background, unless it runs already with
// this data directory: it starts this executable again with o.Role and flags as arguments and the
// variables env, and shows its progress until the start is over. If the child ends before that, its
// error is returned; if ctx is cancelled, the child is stopped too.
func Detach(ctx context.Context, o Options, p Program, flags, env []string) error {
	running, err := status.Get(ctx, o.Role.Socket(o.RunDir))
	if err == nil && running.Role == string(o.Role) && running.DataDir == o.Config.DataDir {
		fmt.Printf("Flyball is already running since %s (pid %d)\n", running.StartedAt.Format(time.DateTime), running.PID)
		return status.NotUp(running.Components)
	}
	began := time.Now()
	if err := checkHost(o, p); err != nil {
		return err
	}
	if err := o.detach(ctx, flags, env); err != nil {
		return err
	}
	what := "Node " + o.Config.NodeName + " is Ready"
	if o.Role == instance.Server {
		what = "The server is up"
	}
	fmt.Printf("%s after %.1fs. The log is below %s/log.\n", what, time.Since(began).Seconds(), o.Config.DataDir)
	return nil
}

func (o Options) detach(ctx context.Context, flags, env []string) error {
	logFile := logging.Path(o.Config.DataDir)
	stderr := filepath.Join(filepath.Dir(logFile), "flyball.err")
	if err := makeDirs(o.Config.DataDir); err != nil {
		return err
	}
	args := append([]string{string(o.Role), "--" + BackgroundFlag}, childFlags(flags)...)
	cmd, listening, err := startChild(args, env, stderr)
	if err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // its standard error says how it ended
		close(ended)
	}()

	states, stop := progress.New(os.Stdout, time.Now()).Follow()
	// Reads end when the child listens, or is dead.
	_, _ = io.Copy(io.Discard, listening)
	watchCtx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	last, err := status.Watch(watchCtx, o.Role.Socket(o.RunDir), states)
	stop()
	switch {
	case ctx.Err() != nil:
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-ended
		return errors.New("starting flyball: interrupted; it was stopped again")
	case err != nil && watchCtx.Err() == nil:
		<-ended // only a dying process stops answering
		return errors.New(childError(stderr))
	}
	if err := status.NotUp(last); err != nil {
		return fmt.Errorf("flyball runs, but %w; it goes on trying, see `flyball status` and %s", err, logFile)
	}
	return nil
}

// childFlags returns the flags of the process in the background: it does not detach again, and it
// gets no token, which everybody could read on its command line.
func childFlags(flags []string) []string {
	var out []string
	for i := 0; i < len(flags); i++ {
		switch f := flags[i]; {
		case f == "--detach", strings.HasPrefix(f, "--detach="), strings.HasPrefix(f, "--token="):
		case f == "--token":
			i++
		default:
			out = append(out, f)
		}
	}
	return out
}

// startChild runs this program in a session of its own. Its standard error goes to a file, where a
// panic can be read when no terminal is left.
func startChild(args, env []string, errFile string) (*exec.Cmd, *os.File, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, fmt.Errorf("finding this program: %w", err)
	}
	stderr, err := os.OpenFile(errFile, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, nil, fmt.Errorf("opening %s: %w", errFile, err)
	}
	defer stderr.Close()
	listening, childEnd, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("opening a pipe: %w", err)
	}
	defer childEnd.Close()
	cmd := exec.Command(self, args...) //nolint:noctx // it is to outlive every context of this process
	cmd.Stdout, cmd.Stderr = stderr, stderr
	cmd.Env = append(os.Environ(), env...)
	cmd.ExtraFiles = []*os.File{childEnd}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting flyball in the background: %w", err)
	}
	return cmd, listening, nil
}

// childError returns the error in a dead child's standard error; if there is none, the end of the
// text.
func childError(path string) string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) == 0 {
		return "flyball ended without a word; see the log beside " + path
	}
	if len(data) > maxError {
		data = data[len(data)-maxError:]
	}
	text := strings.TrimSpace(string(data))
	if i := strings.LastIndex("\n"+text, "\n"+progress.ErrorPrefix); i >= 0 {
		return text[i+len(progress.ErrorPrefix):]
	}
	return text
}

// LeaveShell makes the process independent of the shell that started it: of the shell's umask, and
// of the files that the shell left open. A lock on such a file would last as long as the container
// runtime.
func LeaveShell() {
	setUmask()
	_ = unix.CloseRange(listeningFD, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11; not worth failing for
}

// setUmask sets the umask of a service: files for containers, their users and log shippers get the
// mode with which they are created, and children such as the container runtime inherit the umask.
// Secrets do not depend on it: their files and directories are created for root alone.
func setUmask() { unix.Umask(0o022) }
