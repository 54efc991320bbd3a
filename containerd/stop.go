//go:build linux

package containerd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"flyball.dev/internal/mounts"
)

// containerGrace is how long remaining containers may take to exit. The kubelet has stopped the
// Pods with their own grace periods before.
const containerGrace = 2 * time.Second

// Stop stops containerd and all remaining containers and shims, unmounts all mounts below StateDir
// and RootDir, and removes StateDir. Containers should have been stopped over CRI before; the
// remaining ones are killed after two seconds. RootDir, with images and containerd's metadata,
// stays. Stop is idempotent. Run must have returned before: it would restart containerd.
func Stop(ctx context.Context, cfg Config) error {
	if err := cfg.validate(); err != nil {
		return err
	}
	p, err := findRunning(cfg)
	if err != nil {
		return err
	}
	if p != nil {
		defer p.release()
		if err := p.stop(ctx, stopGrace); err != nil {
			return fmt.Errorf("stopping containerd: %w", err)
		}
	}
	if err := stopShims(ctx, cfg); err != nil {
		return fmt.Errorf("stopping the remaining containers: %w", err)
	}
	if err := errors.Join(mounts.UnmountBelow(cfg.StateDir), mounts.UnmountBelow(cfg.RootDir)); err != nil {
		return fmt.Errorf("unmounting the mounts of containers: %w", err)
	}
	if err := mounts.RemoveTree(cfg.StateDir); err != nil {
		return fmt.Errorf("removing containerd's run-time files: %w", err)
	}
	for _, socket := range []string{cfg.Socket, cfg.Socket + ".ttrpc"} {
		if err := os.Remove(socket); err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("removing containerd's run-time files: %w", err)
		}
	}
	return nil
}

// stopShims stops the remaining containers, and the shims with our socket on their command line.
func stopShims(ctx context.Context, c Config) error {
	pids, err := pidsWith(shimProgram, "-address", c.Socket)
	if err != nil || len(pids) == 0 {
		return err
	}
	klog.FromContext(ctx).V(1).Info("Stopping containers that outlived their Pods", "shims", len(pids))
	var containers, shims []*process
	defer func() {
		for _, p := range slices.Concat(containers, shims) {
			p.release()
		}
	}()
	for _, pid := range pids {
		for _, child := range children(pid) {
			if p, err := open(child); err == nil {
				containers = append(containers, p)
			}
		}
		if p, err := open(pid); err == nil {
			shims = append(shims, p)
		}
	}
	// Only runc knows the other processes of a container that shares the host's process namespace,
	// and its cgroups.
	terminate(ctx, containers)
	return errors.Join(deleteContainers(ctx, c), killAll(ctx, shims))
}

// terminate sends SIGTERM to all processes and waits for all, at most containerGrace.
func terminate(ctx context.Context, all []*process) {
	ctx, cancel := context.WithTimeout(ctx, containerGrace)
	defer cancel()
	for _, p := range all {
		_ = p.signal(unix.SIGTERM)
	}
	for _, p := range all {
		_ = p.wait(ctx)
	}
}

// deleteContainers kills and removes all containers that the bundled runc has state of.
func deleteContainers(ctx context.Context, c Config) error {
	root := filepath.Join(c.StateDir, "runc", namespace)
	entries, err := os.ReadDir(root)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("listing containers: %w", err)
	}
	var errs []error
	for _, e := range entries {
		cmd := exec.CommandContext(ctx, filepath.Join(c.BinDir, "runc"), "--root", root, "delete", "--force", e.Name())
		if output, err := cmd.CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("removing container %s: %w: %s", e.Name(), err, bytes.TrimSpace(output)))
		}
	}
	return errors.Join(errs...)
}

// killAll kills all processes and waits until they have exited.
func killAll(ctx context.Context, all []*process) error {
	var errs []error
	for _, p := range all {
		errs = append(errs, p.signal(unix.SIGKILL))
	}
	for _, p := range all {
		errs = append(errs, p.wait(ctx))
	}
	return errors.Join(errs...)
}

// children returns the child processes of all threads of a process.
func children(pid int) []int {
	files, _ := filepath.Glob(filepath.Join("/proc", strconv.Itoa(pid), "task", "*", "children"))
	var found []int
	for _, file := range files {
		line, _ := os.ReadFile(file)
		for f := range strings.FieldsSeq(string(line)) {
			if child, err := strconv.Atoi(f); err == nil {
				found = append(found, child)
			}
		}
	}
	return found
}
