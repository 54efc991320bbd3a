//go:build linux

package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a running process with its pidfd. Unlike a PID, a pidfd never refers to another
// process later.
type process struct {
	pid   int
	pidfd *os.File
}

// open opens a running process. If there is none, the error is unix.ESRCH.
func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening process %d: %w", pid, err)
	}
	return &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid))}, nil
}

// release closes the pidfd; the process runs on.
func (p *process) release() { _ = p.pidfd.Close() }

func (p *process) signal(s unix.Signal) error {
	conn, err := p.pidfd.SyscallConn() // not Fd, which would make the descriptor a blocking one
	if err == nil {
		cerr := conn.Control(func(fd uintptr) { err = unix.PidfdSendSignal(int(fd), s, nil, 0) })
		err = errors.Join(cerr, err)
	}
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("sending %s to process %d: %w", unix.SignalName(s), p.pid, err)
	}
	return nil
}

// wait returns nil when the process has exited, or the context's error. It needs no polling: a
// pidfd becomes readable. There is at most one wait at a time.
func (p *process) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = p.pidfd.SetReadDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		_ = p.pidfd.SetReadDeadline(time.Time{})
	}()
	conn, err := p.pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("waiting for process %d: %w", p.pid, err)
	}
	err = conn.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return n > 0 || (err != nil && !errors.Is(err, unix.EINTR))
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("waiting for process %d: %w", p.pid, err)
	}
	// Reap it if it is a child of this process.
	_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
	return nil
}

// stop sends SIGTERM, and SIGKILL after grace. It returns when the process has exited.
func (p *process) stop(ctx context.Context, grace time.Duration) error {
	if err := p.signal(unix.SIGTERM); err != nil {
		return err
	}
	graceful, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if err := p.wait(graceful); err == nil || ctx.Err() != nil {
		return err
	}
	if err := p.signal(unix.SIGKILL); err != nil {
		return err
	}
	return p.wait(ctx)
}

// start runs containerd in a session of its own and appends its output to the log file.
func start(c Config) (*process, error) {
	log, err := os.OpenFile(c.LogFile, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return nil, fmt.Errorf("opening containerd's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("starting containerd: %w", err)
	}
	defer func() { _ = null.Close() }()
	child, err := os.StartProcess(c.binary(), []string{c.binary(), "--config", c.configFile()}, &os.ProcAttr{
		Dir:   "/",
		Env:   environment(os.Environ(), c.BinDir, c.Proxy),
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("starting containerd: %w; the bundled programs are expected in %s; `make build` installs them there", err, c.BinDir)
	}
	if err != nil {
		return nil, fmt.Errorf("starting containerd: %w", err)
	}
	// After open has returned: until a child is reaped, no other process gets its PID.
	defer func() { _ = child.Release() }()
	return open(child.Pid)
}

// environment returns the environment of containerd and its shims: Flyball's own (certificates),
// without variables for Flyball alone, and the proxy for image pulls.
func environment(own []string, binDir string, proxy []string) []string {
	set := []string{
		// The bundled programs come first. containerd runs one program of the host, apparmor_parser
		// if the host has AppArmor.
		"PATH=" + binDir + ":/usr/sbin:/usr/bin:/sbin:/bin",
		// Decompress in the process, not with programs of the host.
		"CONTAINERD_DISABLE_PIGZ=true",
		"CONTAINERD_DISABLE_IGZIP=true",
		// Less memory for a little CPU: containerd's heap is small, but it produces much garbage
		// while Pods start.
		"GOGC=50",
	}
	dropped := []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "GOMEMLIMIT", "GODEBUG"}
	for _, s := range set {
		name, _, _ := strings.Cut(s, "=")
		dropped = append(dropped, name)
	}
	kept := slices.DeleteFunc(slices.Clone(own), func(s string) bool {
		name, _, _ := strings.Cut(s, "=")
		return slices.Contains(dropped, name) || IsProxyVariable(name)
	})
	return slices.Concat(kept, set, proxy)
}

// findRunning returns the containerd that runs with our configuration file, or nil. It compares
// program and command line and does not use the PID file, which can be stale, or lost with the
// run-time directory.
func findRunning(c Config) (*process, error) {
	pids, err := pidsWith(program, "--config", c.configFile())
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		if p, err := open(pid); err == nil { // otherwise it has exited meanwhile
			return p, nil
		}
	}
	return nil, nil
}

// sameDir reports whether a path is the same directory for a process as for us, or missing for
// both.
func sameDir(pid int, dir string) bool {
	ours, err := os.Stat(dir)
	theirs, theirErr := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "root", dir))
	if err != nil || theirErr != nil {
		return errors.Is(err, fs.ErrNotExist) && errors.Is(theirErr, fs.ErrNotExist)
	}
	return os.SameFile(ours, theirs)
}

// pidsWith returns the processes of our user that run a program with the argument name followed by
// value, a path to the same file as for us. A Flyball in a container has the same paths, and its
// processes are visible here. A shell or an editor may have the same arguments.
func pidsWith(program, name, value string) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && hasArgument(line, name, value) && isOurs(pid) && runs(pid, program) && sameDir(pid, filepath.Dir(value)) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isOurs reports whether a process belongs to our user: another user may run a process with our
// arguments.
func isOurs(pid int) bool {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid)), &st)
	return err == nil && int(st.Uid) == os.Geteuid()
}

// runs reports whether a process runs a program of that name, in any directory: it may have changed
// in an upgrade.
func runs(pid int, program string) bool {
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	// The kernel marks a file that was replaced.
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == program
}

func hasArgument(cmdline []byte, name, value string) bool {
	return bytes.Contains(append([]byte{0}, cmdline...), []byte("\x00"+name+"\x00"+value+"\x00"))
}

// upToDate reports whether the running process is the same as start would start: program file (an
// upgrade replaces it), umask, proxy and configuration.
func upToDate(c Config, p *process, config []byte) bool {
	running, err := os.Stat(filepath.Join("/proc", strconv.Itoa(p.pid), "exe"))
	if err != nil {
		return false
	}
	installed, err := os.Stat(c.binary())
	if err != nil || !os.SameFile(running, installed) {
		return false
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "status"))
	own, ownErr := os.ReadFile("/proc/self/status")
	if err != nil || ownErr != nil || !sameUmask(status, own) {
		return false
	}
	env, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "environ"))
	if err != nil || !sameProxy(env, c.Proxy) {
		return false
	}
	written, err := os.ReadFile(c.configFile())
	return err == nil && bytes.Equal(written, config)
}

// sameUmask compares the umask in /proc/PID/status of two processes: containerd's umask determines
// the mode of a container's root directory. Kernels before 4.7 do not report it.
func sameUmask(a, b []byte) bool {
	return bytes.Equal(statusLine(a, "Umask:"), statusLine(b, "Umask:"))
}

func statusLine(status []byte, prefix string) []byte {
	for line := range bytes.Lines(status) {
		if bytes.HasPrefix(line, []byte(prefix)) {
			return line
		}
	}
	return nil
}
