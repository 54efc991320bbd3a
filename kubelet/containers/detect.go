//go:build linux

package containers

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	libcgroups "github.com/opencontainers/cgroups"
	"golang.org/x/sys/unix"
)

// DetectNode returns the fields of Node that are read from the host: it is the only function of
// this package that reads it, besides the Resolver that it returns.
func DetectNode(resolvConf string) (Node, error) {
	node := Node{
		CgroupV2: libcgroups.IsCgroup2UnifiedMode(),
		Resolver: &Resolver{file: resolvConf, upstream: systemdResolvConf},
	}
	node.SwapController = swapController(node.CgroupV2)
	// Without the controller, runc would refuse a container with limits.
	if controllers, err := libcgroups.GetAllSubsystems(); err == nil && slices.Contains(controllers, "hugetlb") {
		node.HugepageSizes = libcgroups.HugePageSizes()
	}
	var err error
	node.LowestOOMScoreAdj, err = lowestOOMScoreAdj()
	return node, errors.Join(node.Resolver.refresh(), err)
}

// lowestOOMScoreAdj: without CAP_SYS_RESOURCE runc cannot set a lower one than that of this
// process, and the container would not start.
func lowestOOMScoreAdj() (int64, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return 0, fmt.Errorf("reading the capabilities of this process: %w", err)
	}
	if data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0 {
		return -1000, nil
	}
	raw, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("reading the OOM score of this process: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
}

// swapController reports whether cgroups can limit swap. It checks one below the root, since the
// root has no limits.
func swapController(v2 bool) bool {
	if !v2 {
		_, err := os.Stat("/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes")
		return err == nil
	}
	own, err := libcgroups.ParseCgroupFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	_, err = os.Stat("/sys/fs/cgroup" + own[""] + "/memory.swap.max")
	return err == nil
}
