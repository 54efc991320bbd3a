//go:build linux

package cgroups

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	libcgroups "github.com/opencontainers/cgroups"
	cgroupv1 "github.com/opencontainers/cgroups/fs"
	cgroupv2 "github.com/opencontainers/cgroups/fs2"
	"github.com/samber/lo"
	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/util/sets"

	hostcgroups "flyball.dev/host/cgroups"
)

// hierarchy is the cgroup file systems of this host. Paths begin at their roots.
type hierarchy struct {
	v2 bool
	// mounts are the mount points: with v1 one by controller, with v2 one under "".
	mounts map[string]string
	// controllers are those that the host has.
	controllers sets.Set[string]
}

// unifiedMountpoint is where cgroup v2 is mounted, by convention and in the library.
const unifiedMountpoint = "/sys/fs/cgroup"

// detect returns the hierarchy of this host.
func detect(root string) (hierarchy, error) {
	if libcgroups.IsCgroup2UnifiedMode() {
		raw, err := os.ReadFile(filepath.Join(unifiedMountpoint, "cgroup.controllers"))
		if err != nil {
			return hierarchy{}, fmt.Errorf("reading the cgroup controllers of this host: %w", err)
		}
		controllers := sets.New(strings.Fields(string(raw))...)
		return hierarchy{v2: true, mounts: map[string]string{"": unifiedMountpoint}, controllers: controllers}, nil
	}
	config := &libcgroups.Cgroup{Path: "/" + root, Resources: &libcgroups.Resources{SkipDevices: true}}
	probe, err := cgroupv1.NewManager(config, nil)
	if err != nil {
		return hierarchy{}, fmt.Errorf(
			"finding the cgroup hierarchies of this host; are they mounted below /sys/fs/cgroup? %w", err)
	}
	mounts := lo.MapValues(probe.GetPaths(), func(path, _ string) string { return strings.TrimSuffix(path, "/"+root) })
	h := hierarchy{mounts: mounts, controllers: sets.KeySet(mounts)}
	if !h.controllers.Has("memory") {
		return hierarchy{}, errors.New("finding the cgroup hierarchies of this host: " +
			"no memory controller; boot with cgroup_enable=memory")
	}
	return h, nil
}

// paths are the directories of a cgroup, by the keys of mounts.
func (h hierarchy) paths(path string) map[string]string {
	return lo.MapValues(h.mounts, func(mount, _ string) string { return filepath.Join(mount, path) })
}

// ensure makes the cgroup if it is missing, and sets its limits.
func (h hierarchy) ensure(path string, limits Limits) error {
	r := limits.resources(h.v2, h.controllers)
	config := &libcgroups.Cgroup{Path: path, Resources: r}
	var m libcgroups.Manager
	var err error
	if h.v2 {
		m, err = cgroupv2.NewManager(config, h.paths(path)[""])
	} else {
		m, err = cgroupv1.NewManager(config, h.paths(path))
	}
	if err != nil {
		return err
	}
	const noProcess = -1
	if err := m.Apply(noProcess); err != nil {
		return err
	}
	return m.Set(r)
}

// remove kills the processes in and below the cgroup and removes it. A missing one is no error.
func (h hierarchy) remove(path string) error {
	var errs []error
	for _, dir := range h.paths(path) {
		errs = append(errs, hostcgroups.Remove(dir))
	}
	return errors.Join(errs...)
}

// empty reports whether no process is in or below the cgroup.
func (h hierarchy) empty(path string) (bool, error) {
	for _, dir := range h.paths(path) {
		pids, err := libcgroups.GetAllPids(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil || len(pids) > 0 {
			return false, err
		}
	}
	return true, nil
}

// children are the names of the cgroups directly below.
func (h hierarchy) children(path string) (sets.Set[string], error) {
	out := sets.New[string]()
	for _, dir := range h.paths(path) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				out.Insert(e.Name())
			}
		}
	}
	return out, nil
}

// number is what can be read of a cgroup, in the units of Limits.
type number struct{ controller, v1, v2 string }

var (
	sharesNumber      = number{"cpu", "cpu.shares", "cpu.weight"}
	quotaNumber       = number{"cpu", "cpu.cfs_quota_us", "cpu.max"}
	memoryNumber      = number{"memory", "memory.limit_in_bytes", "memory.max"}
	memoryUsageNumber = number{"memory", "memory.usage_in_bytes", "memory.current"}
)

// read returns one number of the cgroup: 0 if the cgroup or its controller is missing, unlimited if
// a limit is not set.
func (h hierarchy) read(path string, n number) (int64, error) {
	if h.v2 {
		value, err := readNumber(filepath.Join(h.mounts[""], path, n.v2))
		if n == sharesNumber && value != 0 {
			value = int64(sharesOf(uint64(value)))
		}
		return value, err
	}
	if !h.controllers.Has(n.controller) {
		return 0, nil
	}
	value, err := readNumber(filepath.Join(h.mounts[n.controller], path, n.v1))
	// No limit is the largest number of pages there can be.
	if page := int64(os.Getpagesize()); n == memoryNumber && value >= math.MaxInt64/page*page {
		value = unlimited
	}
	return value, err
}

// readNumber reads the first number of a file, which for quotas is the one per QuotaPeriod: nobody
// else sets periods here. It is 0 if there is no such file, for example because the cgroup was
// removed meanwhile.
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
