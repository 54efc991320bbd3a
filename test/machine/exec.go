//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Exec runs a command in the machine. The caller's thread is in the machine from then on.
func (m Machine) Exec(command []string) error {
	pid, err := m.first()
	if err != nil {
		return err
	}
	wd, err := os.Getwd()
	if err != nil {
		return err
	}
	if err := m.enter(pid); err != nil {
		return fmt.Errorf("entering machine %s: %w", m.Name, err)
	}
	// Entering has led to the root.
	if err := unix.Chdir(wd); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("entering machine %s: %w", m.Name, err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{childCommand}, command...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s in machine %s: %w", command[0], m.Name, err)
	}
	_, noTerminal := unix.IoctlGetTermios(0, unix.TCGETS)
	go func() {
		for s := range signals {
			// What a terminal sends, it sends to both.
			if s == unix.SIGTERM || noTerminal != nil {
				_ = cmd.Process.Signal(s)
			}
		}
	}()
	return cmd.Wait()
}

// childCommand makes the program the command in its arguments.
const childCommand = "child"

// child is born in the machine, and ends with the process outside that waits for it. Go's own Pdeathsig does not see a
// parent outside.
func child(command []string) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	return fmt.Errorf("starting %s: %w", path, unix.Exec(path, command, os.Environ()))
}

// enter moves this process into the machine's cgroups, and this thread into its namespaces, where its children are born.
func (m Machine) enter(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	all, err := hierarchies()
	if err != nil {
		return err
	}
	for _, h := range all {
		if err := h.join(m.Name, h.leaf()); err != nil {
			return err
		}
	}
	// A thread that shares its working directory with others cannot change its mount namespace.
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	return unix.Setns(fd, namespaces)
}
