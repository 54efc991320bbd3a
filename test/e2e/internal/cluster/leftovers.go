package cluster

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"flyball.dev/nft"
)

// RunDir holds the run-time files of the cluster.
const RunDir = "/run/flyball"

// ours are the ranges of Pods and Services.
var ours = []netip.Prefix{netip.MustParsePrefix("10.42.0.0/16"), netip.MustParsePrefix("10.43.0.0/16")}

// NothingLeft fails the test for each thing of Flyball's that is left in this machine, data aside.
func NothingLeft(t testing.TB) {
	t.Helper()
	for _, what := range Leftovers() {
		if !slices.Contains(before, what) {
			t.Errorf("left behind: %s", what)
		}
	}
}

// before is what there was when the tests began: somebody else's.
var before []string

// Leftovers lists what is left of Flyball in this machine, data aside.
func Leftovers() []string {
	left := append(processes(), mounts()...)
	left = append(left, links()...)
	left = append(left, addressesAndRoutes()...)
	left = append(left, tables()...)
	for _, pattern := range []string{RunDir, "/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods", "/run/netns/*", "/var/lib/cni/networks/*"} {
		found, _ := filepath.Glob(pattern)
		left = append(left, found...)
	}
	return left
}

// processes are those of the bundled programs, and containers' by their cgroups. Those of a machine
// that test/machine has made of this one are that machine's, whoever uses it.
func processes() []string {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var left []string
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		mine := bytes.Contains(line, []byte(RunDir)) || DataDir != "" && bytes.Contains(line, []byte(DataDir)) || bytes.Contains(cgroup, []byte("/kubepods"))
		mine = mine && !bytes.Contains(cgroup, []byte(":/flyball-machine-"))
		pid, _ := strconv.Atoi(filepath.Base(dir))
		// The dead may wait for a moment until init asks for them.
		if mine && pid != os.Getpid() && Ended(pid) != nil {
			left = append(left, fmt.Sprintf("process %s: %s", filepath.Base(dir), bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	return left
}

func mounts() []string {
	table, _ := os.ReadFile("/proc/self/mounts")
	var left []string
	for line := range strings.Lines(string(table)) {
		point := strings.Fields(line)[1]
		if strings.HasPrefix(point, RunDir) || DataDir != "" && strings.HasPrefix(point, DataDir+"/") || strings.HasPrefix(point, "/run/netns/") {
			left = append(left, "mount "+point)
		}
	}
	return left
}

func links() []string {
	all, err := netlink.LinkList()
	if err != nil {
		return []string{"listing interfaces: " + err.Error()}
	}
	var left []string
	for _, l := range all {
		if name := l.Attrs().Name; name == "flyball0" || strings.HasPrefix(name, "veth") {
			left = append(left, "interface "+name)
		}
	}
	return left
}

func addressesAndRoutes() []string {
	var left []string
	addresses, _ := netlink.AddrList(nil, netlink.FAMILY_V4)
	for _, a := range addresses {
		if isOurs(a.IP.String() + "/32") {
			left = append(left, "address "+a.String())
		}
	}
	routes, _ := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	for _, r := range routes {
		if r.Dst != nil && isOurs(r.Dst.String()) {
			left = append(left, "route "+r.String())
		}
	}
	return left
}

func isOurs(prefix string) bool {
	p, err := netip.ParsePrefix(prefix)
	return err == nil && p.Bits() > 0 && (p.Overlaps(ours[0]) || p.Overlaps(ours[1]))
}

func tables() []string {
	all, err := nft.Kernel{}.Tables()
	if err != nil {
		return []string{"listing nftables: " + err.Error()}
	}
	var left []string
	for _, table := range all {
		if strings.HasPrefix(table.Name, "flyball") {
			left = append(left, "nftables table "+table.Name)
		}
	}
	return left
}

// PID of the flyball process that holds the lock of this name, or of containerd by the name
// containerd/containerd.
func PID(t testing.TB, lock string) int {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(RunDir, lock+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// Ended returns nil if the process is gone, or dead and only waits for its parent.
func Ended(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil //nolint:nilerr // it has no status because it is gone
	}
	// The first thread is dead as soon as it is killed; until the others are, the process holds its
	// locks and ports.
	threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if _, after, found := bytes.Cut(stat, []byte(") ")); found && after[0] == 'Z' && len(threads) <= 1 {
		return nil
	}
	return fmt.Errorf("process %d still runs", pid)
}

// ProcessesOf returns the pids of a Pod's containers whose program is called name.
func ProcessesOf(uid, name string) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		if strings.TrimSpace(string(comm)) == name && strings.Contains(string(cgroup), uid) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}
