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

// process is a running process, held by a pidfd: unlike a pid, it cannot come to mean another process.
type process struct {
	pid   int
	pidfd *os.File
}

// open takes hold of a running process. It returns an error that is os.ErrProcessDone or unix.ESRCH when there is none.
func open(pid int) (*process, error) {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("opening process %d: %w", pid, err)
	}
	return &process{pid: pid, pidfd: os.NewFile(uintptr(fd), "pidfd:"+strconv.Itoa(pid))}, nil
}

func (p *process) close() { _ = p.pidfd.Close() }

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

// wait returns nil when the process has ended, or the context's error. It needs no polling: a pidfd becomes readable.
// There is at most one wait at a time.
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
	// If it was our own child, nobody else takes its exit status away.
	_, _ = unix.Wait4(p.pid, nil, unix.WNOHANG, nil)
	return nil
}

// end asks the process to end with SIGTERM, and makes it end when it has not done so within grace.
func (p *process) end(ctx context.Context, grace time.Duration) error {
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

// start runs containerd in a session of its own, its output appended to the log file.
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
		return nil, fmt.Errorf("starting containerd: %w; the bundled programs are expected in %s, `make build` puts them there", err, c.BinDir)
	}
	if err != nil {
		return nil, fmt.Errorf("starting containerd: %w", err)
	}
	// Not before open has returned: an unreaped child's pid is not given to anybody else.
	defer func() { _ = child.Release() }()
	return open(child.Pid)
}

// environment is that of containerd, and so of the shims: Flyball's own (certificates), without what is meant for Flyball
// alone, and the proxy that images are pulled through.
func environment(own []string, binDir string, proxy []string) []string {
	set := []string{
		// The bundled programs win. apparmor_parser is the one program of the host that containerd asks for, where the
		// host has AppArmor.
		"PATH=" + binDir + ":/usr/sbin:/usr/bin:/sbin:/bin",
		// Decompressing in the process, not by a program that the host may have.
		"CONTAINERD_DISABLE_PIGZ=true",
		"CONTAINERD_DISABLE_IGZIP=true",
		// Memory for a little CPU: containerd's heap is small, its garbage while Pods start is not.
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

// find returns the containerd that runs with our configuration file, or nil. Program and command line are the proof, not
// the pid file: a pid file can be stale, or lost with the run-time directory.
func find(c Config) (*process, error) {
	pids, err := pidsWith(program, "--config", c.configFile())
	if err != nil {
		return nil, err
	}
	for _, pid := range pids {
		p, err := open(pid)
		if err != nil {
			continue // it has ended meanwhile
		}
		return p, nil
	}
	return nil, nil
}

// sameDir tells whether a directory is the same to a process as to us. One that neither has any more is.
func sameDir(pid int, dir string) bool {
	ours, err := os.Stat(dir)
	theirs, theirErr := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "root", dir))
	if err != nil || theirErr != nil {
		return errors.Is(err, fs.ErrNotExist) && errors.Is(theirErr, fs.ErrNotExist)
	}
	return os.SameFile(ours, theirs)
}

// pidsWith returns the processes of our user that run a program and on whose command line name is followed by value, a
// path that means the same file to them as to us: a Flyball in a container has the same paths, and its processes show
// here too. A shell or an editor may have our arguments on its command line.
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

// isOurs tells whether a process belongs to our user. Anybody may write our arguments on a command line.
func isOurs(pid int) bool {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join("/proc", strconv.Itoa(pid)), &st)
	return err == nil && int(st.Uid) == os.Geteuid()
}

// runs tells whether a process runs a program of that name. The directory does not count: before an upgrade it may have
// been another one.
func runs(pid int, program string) bool {
	exe, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	// The kernel marks a file that has been replaced meanwhile.
	return err == nil && filepath.Base(strings.TrimSuffix(exe, " (deleted)")) == program
}

func hasArgument(cmdline []byte, name, value string) bool {
	return bytes.Contains(append([]byte{0}, cmdline...), []byte("\x00"+name+"\x00"+value+"\x00"))
}

// current reports whether the running process is the containerd that start would start: the same program file (it is not
// after an upgrade), umask, proxy and configuration.
func current(c Config, p *process, wanted []byte) bool {
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
	return err == nil && bytes.Equal(written, wanted)
}

// sameUmask compares the umask in two processes' /proc/PID/status: a container's root directory has the mode that the
// umask of containerd leaves it. Kernels before 4.7 do not tell it.
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
