//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stateDir has a directory for each machine.
const stateDir = "/var/lib/flyball-machine"

// namespaces are a machine's own.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP

// Machine is a second machine on this host.
type Machine struct {
	Name string
	Network
}

// Network is how a machine is linked with the host.
type Network struct {
	Address     netip.Prefix   `json:"address"`
	Host        netip.Prefix   `json:"host"`
	Unreachable []netip.Prefix `json:"unreachable"`
}

// Create makes the machine. One that runs already stays as it is.
func (m Machine) Create() error {
	if _, err := m.first(); err == nil {
		return nil
	}
	if err := m.Remove(); err != nil {
		return err
	}
	if err := m.create(); err != nil {
		return fmt.Errorf("making machine %s: %w", m.Name, errors.Join(err, m.Remove()))
	}
	return nil
}

func (m Machine) create() error {
	for _, dir := range []string{"lib", "log", "etc", "etc-work"} {
		if err := os.MkdirAll(filepath.Join(m.dir(), dir), 0o755); err != nil {
			return err
		}
	}
	all, err := hierarchies()
	if err != nil {
		return err
	}
	// The first process is started from within the machine's cgroup: the namespace begins where it is born.
	for _, h := range all {
		if err := h.create(m.Name); err != nil {
			return err
		}
		if err := h.join(m.Name, ""); err != nil {
			return err
		}
	}
	log, err := os.Create(filepath.Join(m.dir(), "machine.log"))
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	first := exec.Command("/proc/self/exe", initCommand)
	first.SysProcAttr = &unix.SysProcAttr{Cloneflags: namespaces, Setsid: true}
	first.Stderr = log
	plan, err := first.StdinPipe()
	if err != nil {
		return err
	}
	answer, err := first.StdoutPipe()
	if err != nil {
		return err
	}
	if err := first.Start(); err != nil {
		return fmt.Errorf("starting its first process: %w", err)
	}
	// Written at once, so that whatever fails below is removed.
	if err := m.keep(first.Process.Pid); err != nil {
		return errors.Join(err, first.Process.Kill(), first.Wait())
	}
	if err := m.link(first.Process.Pid); err != nil {
		return err
	}
	for _, h := range all {
		if err := h.delegate(m.Name, first.Process.Pid); err != nil {
			return err
		}
	}
	err = json.NewEncoder(plan).Encode(inner{Name: m.Name, Dir: m.dir(), Hierarchies: all, Network: m.Network})
	if err := errors.Join(err, plan.Close()); err != nil {
		return fmt.Errorf("telling its first process what to do: %w", err)
	}
	// It closes its standard output when all is done.
	failed, err := io.ReadAll(answer)
	if err != nil {
		return err
	}
	if text := strings.TrimSpace(string(failed)); text != done {
		return fmt.Errorf("setting it up from within: %s (more in %s)", text, log.Name())
	}
	return first.Process.Release()
}

// Remove ends everything that runs in the machine, and removes all that it left on the host.
func (m Machine) Remove() error {
	if err := m.kill(); err != nil {
		return fmt.Errorf("removing machine %s: %w", m.Name, err)
	}
	all, err := hierarchies()
	for _, h := range all {
		err = errors.Join(err, h.remove(m.Name))
	}
	// Its mounts went with its processes: what lies here is files.
	if err := errors.Join(err, m.unlink(), os.RemoveAll(m.dir())); err != nil {
		return fmt.Errorf("removing machine %s: %w", m.Name, err)
	}
	_ = os.Remove(stateDir) // unless another machine is there
	return nil
}

// kill ends the first process, and with it all others: the kernel sees to that before the first one is gone.
func (m Machine) kill() error {
	pid, err := m.first()
	if err != nil {
		return nil // no such process
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("ending its processes: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	// Looked at again, now that the process cannot become another one.
	if again, err := m.first(); err != nil || again != pid {
		return nil // it ended by itself
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending its processes: %w", err)
	}
	// Our own child is gone when it is waited for, another's when it is readable.
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		if n > 0 {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("ending its processes: %w", err)
		}
	}
	return fmt.Errorf("ending its processes: process %d of this host does not end", pid)
}

func (m Machine) dir() string { return filepath.Join(stateDir, m.Name) }

// keep remembers the first process, by its id and the time it was started at, because ids are used again.
func (m Machine) keep(pid int) error {
	started, err := startOf(pid)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(m.dir(), "pid"), fmt.Appendf(nil, "%d %s\n", pid, started), 0o644)
}

// first returns the id of the first process, as the host counts.
func (m Machine) first() (int, error) {
	body, err := os.ReadFile(filepath.Join(m.dir(), "pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("looking for machine %s: there is none", m.Name)
	}
	if err != nil {
		return 0, fmt.Errorf("looking for machine %s: %w", m.Name, err)
	}
	var pid int
	var started string
	if _, err := fmt.Sscan(string(body), &pid, &started); err != nil {
		return 0, fmt.Errorf("looking for machine %s: reading its pid: %w", m.Name, err)
	}
	if now, err := startOf(pid); err != nil || now != started {
		return 0, fmt.Errorf("looking for machine %s: it does not run", m.Name)
	}
	return pid, nil
}

// startOf returns when a process was started, in ticks since the host was. A zombie has ended.
func startOf(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" || fields[0] == "X" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[19], nil
}
