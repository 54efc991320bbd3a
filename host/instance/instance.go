//go:build linux

package instance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"flyball.dev/apis/config/v1alpha1"
)

// Role is what a process does on its host.
type Role string

// The roles of a process. Up is both of the others.
const (
	Up     Role = "up"
	Server Role = "server"
	Agent  Role = "agent"
)

// locks are the files that a role locks, in order. The first one's name is that of the status
// socket too.
func (r Role) locks() []string {
	switch r {
	case Server:
		return []string{"flyball"}
	case Agent:
		return []string{"flyball-agent"}
	}
	return []string{"flyball", "flyball-agent"}
}

// Socket is where a process of this role serves its status.
func (r Role) Socket(runDir string) string { return filepath.Join(runDir, r.locks()[0]+".sock") }

// Sockets are all the places where a status may be served.
func Sockets(runDir string) []string {
	return []string{Server.Socket(runDir), Agent.Socket(runDir)}
}

// RunningError says that the role is taken.
type RunningError struct{ PID int }

func (e *RunningError) Error() string {
	return fmt.Sprintf("flyball is already running (pid %d); `flyball status` shows it, `flyball down` stops it", e.PID)
}

// Lock is held by the process that has a role. The kernel releases it with the process, however
// that ends.
type Lock struct {
	runDir string
	role   Role
	files  []*os.File
}

// Acquire takes the role, or returns a RunningError.
func Acquire(runDir string, role Role) (*Lock, error) {
	if err := os.MkdirAll(runDir, 0o711); err != nil {
		return nil, fmt.Errorf("creating the run-time directory: %w", err)
	}
	l := &Lock{runDir: runDir, role: role}
	for _, name := range role.locks() {
		f, err := lock(filepath.Join(runDir, name+".pid"))
		if err != nil {
			l.close()
			return nil, err
		}
		l.files = append(l.files, f)
	}
	return l, nil
}

// lock takes the lock of a file. Its holder removes the file in the end, perhaps between our
// opening and our locking. The lock of a removed file excludes nobody, so the file that is at the
// path then is tried.
func lock(path string) (*os.File, error) {
	for {
		f, err := lockOnce(path)
		if err != nil || isAt(f, path) {
			return f, err
		}
		f.Close()
	}
}

func isAt(f *os.File, path string) bool {
	ours, err := f.Stat()
	there, thereErr := os.Stat(path)
	return err == nil && thereErr == nil && os.SameFile(ours, there)
}

func lockOnce(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("opening the lock: %w", err)
	}
	// A lock of the open file description, unlike flock, can be asked for without being taken.
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		pid := readPID(f.Name())
		f.Close()
		return nil, &RunningError{PID: pid}
	}
	if err == nil {
		err = errors.Join(f.Truncate(0), writePID(f))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	return f, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

func readPID(path string) int {
	data, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(data)))
	return pid
}

// Record writes the configuration, for `flyball down`.
func (l *Lock) Record(c v1alpha1.FlyballConfiguration) error {
	data, err := yaml.Marshal(c)
	if err == nil {
		err = os.WriteFile(recordFile(l.runDir), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("recording the configuration in use: %w", err)
	}
	return nil
}

func recordFile(runDir string) string { return filepath.Join(runDir, "config.yaml") }

// Recorded is the configuration that was last in use since the host booted; empty if there was
// none.
func Recorded(runDir string) (v1alpha1.FlyballConfiguration, error) {
	var c v1alpha1.FlyballConfiguration
	data, err := os.ReadFile(recordFile(runDir))
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err == nil {
		err = yaml.Unmarshal(data, &c)
	}
	if err != nil {
		return v1alpha1.FlyballConfiguration{}, fmt.Errorf("reading the configuration that was last in use from %s: %w", recordFile(runDir), err)
	}
	return c, nil
}

// Release gives the role back and removes its files.
func (l *Lock) Release() {
	for _, name := range l.role.locks() {
		_ = os.Remove(filepath.Join(l.runDir, name+".pid"))
	}
	_ = os.Remove(l.role.Socket(l.runDir))
	l.close()
}

func (l *Lock) close() {
	for _, f := range l.files {
		f.Close()
	}
}

// Running returns the pids of the processes that hold a lock of the role; of Up, all.
func Running(runDir string, role Role) []int {
	var pids []int
	for _, name := range role.locks() {
		path := filepath.Join(runDir, name+".pid")
		if held(path) {
			pids = append(pids, readPID(path))
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids)
}

func held(path string) bool {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &whole) == nil && whole.Type != unix.F_UNLCK
}

// Terminate asks the process to end and waits for it; after grace it is killed.
func Terminate(ctx context.Context, pid int, grace time.Duration) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending process %d: %w", pid, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		awaitExit(fd)
	}()
	select {
	case <-ended:
		return nil
	case <-time.After(grace):
	case <-ctx.Done():
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("killing process %d: %w", pid, err)
	}
	<-ended
	return ctx.Err()
}

// awaitExit returns when the process of the pidfd has ended: the descriptor becomes readable then.
func awaitExit(pidfd int) {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
