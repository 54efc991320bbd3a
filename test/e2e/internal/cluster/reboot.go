package cluster

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flyball.dev/nft"
)

// Reboot does to Flyball what the loss of power does: every process of it is killed, containers
// with the rest, and what a machine forgets is gone. Pods are the UIDs of all Pods. What lies on
// disk stays.
func Reboot(t testing.TB, pods []string) {
	t.Helper()
	// What starts others goes first.
	kill(t, []int{PID(t, "flyball")})
	kill(t, bundled("containerd"))
	kill(t, bundled("containerd-shim-runc-v2"))
	for _, uid := range pods {
		kill(t, withCgroup(uid))
	}
	forgetMounts(t)
	forgetNetwork(t)
	for _, uid := range pods {
		forgetCgroups(uid)
	}
	if err := os.RemoveAll(RunDir); err != nil {
		t.Fatal(err)
	}
}

// kill kills processes and waits until they are gone.
func kill(t testing.TB, pids []int) {
	t.Helper()
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for _, pid := range pids {
		Eventually(t, Soon, func() error { return Ended(pid) })
	}
}

// bundled are the processes of a bundled program in this machine: another one may share the
// kernel's list of processes.
func bundled(program string) []int {
	here, _ := os.Readlink("/proc/self/ns/mnt")
	return processesWhere(func(dir string) bool {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		name, _, _ := strings.Cut(string(line), "\x00")
		there, _ := os.Readlink(filepath.Join(dir, "ns/mnt"))
		return filepath.Base(name) == program && here == there && bytes.Contains(line, []byte(RunDir))
	})
}

func withCgroup(uid string) []int {
	return processesWhere(func(dir string) bool {
		cgroup, _ := os.ReadFile(filepath.Join(dir, "cgroup"))
		return strings.Contains(string(cgroup), uid)
	})
}

func processesWhere(match func(dir string) bool) []int {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, dir := range dirs {
		if match(dir) {
			pid, _ := strconv.Atoi(filepath.Base(dir))
			pids = append(pids, pid)
		}
	}
	return pids
}

func forgetMounts(t testing.TB) {
	t.Helper()
	for _, what := range slices.Backward(mounts()) {
		point := strings.TrimPrefix(what, "mount ")
		if slices.Contains(before, what) {
			continue
		}
		if err := unix.Unmount(point, unix.MNT_DETACH); err != nil {
			t.Fatalf("unmounting %s: %v", point, err)
		}
		if strings.HasPrefix(point, "/run/netns/") {
			_ = os.Remove(point)
		}
	}
}

func forgetNetwork(t testing.TB) {
	t.Helper()
	addresses, _ := netlink.AddrList(nil, netlink.FAMILY_V4)
	for _, a := range addresses {
		if isOurs(a.IP.String() + "/32") {
			link, err := netlink.LinkByIndex(a.LinkIndex)
			if err == nil && link.Attrs().Name == "lo" {
				_ = netlink.AddrDel(link, &a)
			}
		}
	}
	if bridge, err := netlink.LinkByName("flyball0"); err == nil {
		if err := netlink.LinkDel(bridge); err != nil {
			t.Fatal(err)
		}
	}
	tables, err := nft.Kernel{}.Tables()
	if err != nil {
		t.Fatal(err)
	}
	for _, table := range tables {
		if !strings.HasPrefix(table.Name, "flyball") {
			continue
		}
		tx := nft.Transaction{Table: table}
		tx.Remove()
		if err := (nft.Kernel{}).Apply(tx); err != nil {
			t.Fatal(err)
		}
	}
	// Last: without them a packet to a Pod could leave the machine.
	routes, _ := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	for _, r := range routes {
		if r.Dst != nil && isOurs(r.Dst.String()) {
			_ = netlink.RouteDel(&r)
		}
	}
}

// forgetCgroups removes those of a Pod in every hierarchy.
func forgetCgroups(uid string) {
	for _, pattern := range []string{"/sys/fs/cgroup/kubepods", "/sys/fs/cgroup/*/kubepods"} {
		for _, class := range []string{"", "burstable", "besteffort"} {
			roots, _ := filepath.Glob(filepath.Join(pattern, class, "pod"+uid))
			for _, root := range roots {
				var dirs []string
				_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
					if err == nil && d.IsDir() {
						dirs = append(dirs, path)
					}
					return nil // what is gone need not be removed
				})
				for _, dir := range slices.Backward(dirs) {
					_ = os.Remove(dir)
				}
			}
		}
	}
}
