//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// initCommand makes the program the first process of a machine.
const initCommand = "init"

// done is what it answers when the machine is ready.
const done = "ready"

// inner is what the first process is told by standard input.
type inner struct {
	Name        string      `json:"name"`
	Dir         string      `json:"dir"`
	Hierarchies []hierarchy `json:"hierarchies"`
	Network     Network     `json:"network"`
}

// inside is the first process of a machine: it sets up what can only be set up from within, and then collects the dead.
func inside() error {
	var in inner
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return fmt.Errorf("reading what to do: %w", err)
	}
	if err := in.setUp(); err != nil {
		fmt.Println(err)
		return err
	}
	fmt.Println(done)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	for _, fd := range []int{0, 1} {
		if err := unix.Dup3(int(null.Fd()), fd, 0); err != nil {
			return err
		}
	}
	signal.Ignore(unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) || pid > 0 {
			continue
		}
		// A signal may come between the look and the wait; the next look is not far.
		select {
		case <-children:
		case <-time.After(time.Minute):
		}
	}
}

func (in inner) setUp() error {
	if err := unix.Sethostname([]byte(in.Name)); err != nil {
		return fmt.Errorf("setting the host name: %w", err)
	}
	if err := in.mount(); err != nil {
		return err
	}
	return in.Network.setUp()
}

// mount makes the machine's own view of the file system.
func (in inner) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keeping mounts from the host: %w", err)
	}
	if err := forgetPods(); err != nil {
		return err
	}
	// Shared within the machine, as on one that systemd has started: Pods may ask for mounts that propagate.
	steps := []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		// The network devices in /sys are those of the namespace that mounts it.
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=" + filepath.Join(in.Dir, "etc") + ",workdir=" + filepath.Join(in.Dir, "etc-work")},
		{filepath.Join(in.Dir, "log"), "/var/log", "", unix.MS_BIND, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		// Last: the directory of the machine is below.
		{filepath.Join(in.Dir, "lib"), "/var/lib", "", unix.MS_BIND, ""},
	}
	for _, s := range steps {
		if err := unix.Mount(s.source, s.target, s.fstype, s.flags, s.data); err != nil {
			return fmt.Errorf("mounting %s %s at %s: %w", s.fstype, s.source, s.target, err)
		}
	}
	return in.mountCgroups()
}

// forgetPods unmounts, in here, what Pods of the host have mounted: a copy would keep their network namespaces and file
// systems alive after their end. What the host has meanwhile unmounted, or removed, is forgotten already.
func forgetPods() error {
	body, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("listing mounts: %w", err)
	}
	for _, target := range slices.Backward(podMounts(string(body))) {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmounting %s: %w", target, err)
		}
	}
	return nil
}

// podMounts are the mounts of container runtimes and node agents, whatever directories they were told to use.
func podMounts(mountinfo string) []string {
	var targets []string
	for line := range strings.Lines(mountinfo) {
		mount, fstype, _ := strings.Cut(line, " - ")
		where := strings.Fields(mount)
		if len(where) < 5 {
			continue
		}
		target := where[4]
		if strings.HasPrefix(fstype, "nsfs ") || strings.HasPrefix(target, "/run/") || strings.HasPrefix(target, "/var/lib/") ||
			strings.Contains(target, "/kubelet/pods/") || strings.Contains(target, "/volumes/kubernetes.io~") {
			targets = append(targets, target)
		}
	}
	return targets
}

// mountCgroups mounts what the host has, as seen from the machine's own cgroups.
func (in inner) mountCgroups() error {
	if in.Hierarchies[0].Path != "/sys/fs/cgroup" {
		if err := unix.Mount("tmpfs", "/sys/fs/cgroup", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=755"); err != nil {
			return fmt.Errorf("mounting a tmpfs at /sys/fs/cgroup: %w", err)
		}
	}
	for _, h := range in.Hierarchies {
		fstype := "cgroup"
		if h.V2 {
			fstype = "cgroup2"
		}
		if err := os.MkdirAll(h.Path, 0o755); err != nil {
			return fmt.Errorf("mounting %s: %w", h.Path, err)
		}
		if err := unix.Mount(fstype, h.Path, fstype, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, h.Options); err != nil {
			return fmt.Errorf("mounting %s %s at %s: %w", fstype, h.Options, h.Path, err)
		}
	}
	return nil
}
