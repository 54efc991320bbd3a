//go:build linux

package containers

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	libcgroups "github.com/opencontainers/cgroups"
)

// capSysResource is CAP_SYS_RESOURCE, which lowering an oom_score_adj needs.
const capSysResource = 24

// DetectNode fills in what of the node can be read from the host; the rest is
// for the caller. It is the only function here that reads the host.
func DetectNode(resolvConf string) (Node, error) {
	node := Node{
		CgroupV2: libcgroups.IsCgroup2UnifiedMode(),
	}
	// Without the controller a limit cannot be set, and runc would refuse the container.
	if controllers, err := libcgroups.GetAllSubsystems(); err == nil && slices.Contains(controllers, "hugetlb") {
		node.HugepageSizes = libcgroups.HugePageSizes()
	}
	var errs [3]error
	host := &resolver{file: resolvConf, behind: systemdResolvConf}
	errs[0] = host.refresh()
	node.HostDNS = host.config
	node.MemoryCapacity, errs[1] = memoryCapacity()
	node.LowestOOMScoreAdj, errs[2] = lowestOOMScoreAdj()
	node.SwapController = swapController(node.CgroupV2)
	return node, errors.Join(errs[:]...)
}

func memoryCapacity() (int64, error) {
	line, err := procLine("/proc/meminfo", "MemTotal:")
	if err != nil {
		return 0, err
	}
	kib, err := strconv.ParseInt(strings.TrimSuffix(line, " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("reading the host's memory: %w", err)
	}
	return kib * 1024, nil
}

// lowestOOMScoreAdj: without CAP_SYS_RESOURCE runc cannot go below what we have
// ourselves, and the container would not start.
func lowestOOMScoreAdj() (int64, error) {
	line, err := procLine("/proc/self/status", "CapEff:")
	if err != nil {
		return 0, err
	}
	caps, err := strconv.ParseUint(line, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("reading our capabilities: %w", err)
	}
	if caps&(1<<capSysResource) != 0 {
		return -1000, nil
	}
	raw, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, fmt.Errorf("reading our OOM score: %w", err)
	}
	return strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
}

func procLine(file, prefix string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("reading the host: %w", err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if after, ok := strings.CutPrefix(s.Text(), prefix); ok {
			return strings.TrimSpace(after), nil
		}
	}
	return "", fmt.Errorf("reading the host: no line %q in %s", prefix, file)
}

// swapController looks at a cgroup below the root: the root has no limits.
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
