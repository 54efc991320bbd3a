//go:build linux

// Package cgroups removes cgroups of this host, of either version, with the processes in them.
package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	libcgroups "github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// removeTimeout bounds how long Remove waits for killed processes to leave.
const removeTimeout = 5 * time.Second

// Remove kills the processes in and below the cgroup whose directory is dir, and removes it with
// all cgroups below. A missing one is no error. The kernel reports no empty cgroup of v1, so Remove
// polls.
func Remove(dir string) error {
	for deadline := time.Now().Add(removeTimeout); ; {
		killErr := kill(dir)
		err := libcgroups.RemovePath(dir) // retries for a second while the kernel says EBUSY
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("removing the cgroup %s: %w", dir, errors.Join(err, killErr))
		}
	}
}

// kill kills every process in and below a cgroup.
func kill(dir string) error {
	// Since Linux 5.14 the kernel kills all in a cgroup of v2, those included that fork meanwhile.
	// The file must not be created: for a missing one, cgroup file systems refuse that with EACCES.
	f, err := os.OpenFile(filepath.Join(dir, "cgroup.kill"), os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString("1")
		return errors.Join(err, f.Close())
	}
	pids, err := libcgroups.GetAllPids(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, pid := range pids {
		if pid <= 1 || pid == os.Getpid() {
			continue // never in there, but a mistake would be fatal
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}
