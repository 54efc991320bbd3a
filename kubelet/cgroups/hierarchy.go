//go:build linux

package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	libcgroups "github.com/opencontainers/cgroups"
	cgroupv1 "github.com/opencontainers/cgroups/fs"
	cgroupv2 "github.com/opencontainers/cgroups/fs2"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/sets"
)

// unifiedMountpoint is where cgroup v2 is mounted, by convention and in the library.
const unifiedMountpoint = "/sys/fs/cgroup"

// detect returns the hierarchy of this host.
func detect(root string) (hierarchy, bool, error) {
	if libcgroups.IsCgroup2UnifiedMode() {
		raw, err := os.ReadFile(filepath.Join(unifiedMountpoint, "cgroup.controllers"))
		if err != nil {
			return nil, false, fmt.Errorf("reading the cgroup controllers of this host: %w", err)
		}
		return unified{mount: unifiedMountpoint, controllers: sets.New(strings.Fields(string(raw))...)}, true, nil
	}
	probe, err := cgroupv1.NewManager(&libcgroups.Cgroup{Path: "/" + root, Resources: &libcgroups.Resources{SkipDevices: true}}, nil)
	if err != nil {
		return nil, false, fmt.Errorf("finding the cgroup hierarchies of this host; are they mounted below /sys/fs/cgroup? %w", err)
	}
	mounts := map[string]string{}
	for name, path := range probe.GetPaths() {
		mounts[name] = strings.TrimSuffix(path, "/"+root)
	}
	if _, ok := mounts["memory"]; !ok {
		return nil, false, errors.New("finding the cgroup hierarchies of this host: no memory controller; boot with cgroup_enable=memory")
	}
	return legacy{mounts: mounts}, false, nil
}

// legacy (v1) is one hierarchy per controller; mounts maps a controller to its mount point.
type legacy struct{ mounts map[string]string }

func (h legacy) paths(path string) map[string]string {
	out := make(map[string]string, len(h.mounts))
	for name, mount := range h.mounts {
		out[name] = filepath.Join(mount, path)
	}
	return out
}

func (h legacy) has(controller string) bool { _, ok := h.mounts[controller]; return ok }

func (h legacy) ensure(path string, limits Limits) error {
	r := limits.resources(false, h.has)
	m, err := cgroupv1.NewManager(&libcgroups.Cgroup{Path: path, Resources: r}, h.paths(path))
	if err != nil {
		return err
	}
	return apply(m, r)
}

func (h legacy) remove(path string) error {
	var errs []error
	for _, dir := range h.paths(path) {
		errs = append(errs, removeTree(dir, killPIDs))
	}
	return errors.Join(errs...)
}

func (h legacy) empty(path string) (bool, error) {
	for _, dir := range h.paths(path) {
		if empty, err := noProcess(dir); err != nil || !empty {
			return false, err
		}
	}
	return true, nil
}

func (h legacy) children(path string) (sets.Set[string], error) {
	out := sets.New[string]()
	for _, dir := range h.paths(path) {
		if err := subdirectories(dir, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (h legacy) read(path string, n number) (int64, error) {
	controller, file := "cpu", "cpu.shares"
	switch n {
	case quotaNumber:
		file = "cpu.cfs_quota_us"
	case memoryNumber:
		controller, file = "memory", "memory.limit_in_bytes"
	case memoryUsageNumber:
		controller, file = "memory", "memory.usage_in_bytes"
	}
	if !h.has(controller) {
		return 0, nil
	}
	value, err := readNumber(filepath.Join(h.mounts[controller], path, file))
	// No limit is the largest number of pages there can be.
	if n == memoryNumber && value >= math.MaxInt64/int64(os.Getpagesize())*int64(os.Getpagesize()) {
		value = unlimited
	}
	return value, err
}

// unified is the one unified hierarchy.
type unified struct {
	mount       string
	controllers sets.Set[string]
}

func (h unified) has(controller string) bool { return h.controllers.Has(controller) }

func (h unified) ensure(path string, limits Limits) error {
	r := limits.resources(true, h.has)
	m, err := cgroupv2.NewManager(&libcgroups.Cgroup{Path: path, Resources: r}, filepath.Join(h.mount, path))
	if err != nil {
		return err
	}
	return apply(m, r)
}

func (h unified) remove(path string) error {
	return removeTree(filepath.Join(h.mount, path), func(dir string) error {
		// Since Linux 5.14 the kernel kills a whole subtree, without races.
		err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		if errors.Is(err, fs.ErrNotExist) {
			return killPIDs(dir)
		}
		return err
	})
}

func (h unified) empty(path string) (bool, error) { return noProcess(filepath.Join(h.mount, path)) }

func (h unified) children(path string) (sets.Set[string], error) {
	out := sets.New[string]()
	return out, subdirectories(filepath.Join(h.mount, path), out)
}

func (h unified) read(path string, n number) (int64, error) {
	dir := filepath.Join(h.mount, path)
	switch n {
	case sharesNumber:
		weight, err := readNumber(filepath.Join(dir, "cpu.weight"))
		if err != nil || weight == 0 {
			return 0, err
		}
		return int64(sharesOf(uint64(weight))), nil
	case quotaNumber:
		return readNumber(filepath.Join(dir, "cpu.max"))
	case memoryNumber:
		return readNumber(filepath.Join(dir, "memory.max"))
	default:
		return readNumber(filepath.Join(dir, "memory.current"))
	}
}

// readNumber reads the first number of a file, which for quotas is the one per
// QuotaPeriod: nobody else sets periods here. It is 0 if there is no such file, for
// example because the cgroup was removed meanwhile.
func readNumber(file string) (int64, error) {
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
	if first == "max" {
		return unlimited, nil
	}
	return strconv.ParseInt(first, 10, 64)
}

// apply makes a cgroup without putting a process into it, and sets its limits.
func apply(m libcgroups.Manager, r *libcgroups.Resources) error {
	const nobody = -1
	if err := m.Apply(nobody); err != nil {
		return err
	}
	return m.Set(r)
}

// removeTree removes dir and all cgroups below. Processes need a moment to die
// and the kernel sends no event for it on v1, so that we look again for a while.
func removeTree(dir string, kill func(dir string) error) error {
	deadline := time.Now().Add(5 * time.Second)
	for wait := time.Millisecond; ; wait = min(wait*2, 100*time.Millisecond) {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		killErr := kill(dir)
		err := rmdirs(dir)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("removing %s: %w", dir, errors.Join(err, killErr))
		}
		time.Sleep(wait)
	}
}

// rmdirs removes directories from the leaves up. Files of a cgroup cannot be
// removed and need not be.
func rmdirs(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := rmdirs(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

// killPIDs kills every process in and below a cgroup.
func killPIDs(dir string) error {
	pids, err := libcgroups.GetAllPids(dir)
	if err != nil {
		return err
	}
	var errs []error
	// Our own process is never in there, but a mistake would be fatal.
	for _, pid := range slices.DeleteFunc(pids, func(pid int) bool { return pid <= 1 || pid == os.Getpid() }) {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("killing process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

func noProcess(dir string) (bool, error) {
	pids, err := libcgroups.GetAllPids(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
		return true, nil
	}
	return err == nil && len(pids) == 0, err
}

func subdirectories(dir string, into sets.Set[string]) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			into.Insert(e.Name())
		}
	}
	return nil
}
