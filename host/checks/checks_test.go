//go:build linux

package checks

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"flyball.dev/nft"
)

func goodHost() Host {
	return Host{
		Capabilities: ^uint64(0), CgroupVersion: 2, Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"},
		Kernel:    map[string]error{"nf_tables": nil},
		Addresses: []Address{{"eth0", netip.MustParsePrefix("192.0.2.2/24")}},
		Routes:    []Route{{"eth0", netip.MustParsePrefix("0.0.0.0/0")}, {"eth0", netip.MustParsePrefix("192.0.2.0/24")}},
		Disk:      Disk{FreeBytes: 10 << 30}, RootDisk: Disk{FreeBytes: 10 << 30},
	}
}

func want() Want {
	return Want{
		Ports:         map[string]int{"API server": 6443, "node agent": 10250},
		Ranges:        map[string]netip.Prefix{"clusterCIDR": netip.MustParsePrefix("10.42.0.0/16"), "serviceCIDR": netip.MustParsePrefix("10.43.0.0/16")},
		OwnInterfaces: []string{"flyball0"}, OwnAddresses: []netip.Addr{netip.MustParseAddr("10.43.0.10")},
		NodeIP: netip.MustParseAddr("192.0.2.2"), DataDir: "/data", RootDir: "/var/lib/kubelet", BundledRuntime: true,
	}
}

func TestCheck(t *testing.T) {
	tests := map[string]struct {
		reason   string
		mutate   func(*Host, *Want)
		missing  []string // parts of the required findings' error, in order
		warnings []string // names of findings that are not required
	}{
		"Good": {reason: "Nothing is missing.", mutate: func(*Host, *Want) {}},
		"NotRoot": {
			reason: "One remedy is enough: capabilities come with root.",
			mutate: func(h *Host, _ *Want) {
				h.EUID, h.Capabilities, h.Overlay = 1000, 0, errors.New("not permitted")
			},
			missing: []string{"not as root", "run flyball as root"},
		},
		"Container": {
			reason:  "Root in a container is not enough.",
			mutate:  func(h *Host, _ *Want) { h.Capabilities = 1 << unix.CAP_SYS_RESOURCE },
			missing: []string{"CAP_SYS_ADMIN", "CAP_NET_ADMIN", "privileged"},
		},
		"NoSysResource": {
			reason:   "It costs a feature only.",
			mutate:   func(h *Host, _ *Want) { h.Capabilities &^= 1 << unix.CAP_SYS_RESOURCE },
			warnings: []string{"CAP_SYS_RESOURCE"},
		},
		"DroppingFirewall": {reason: "Flyball lets the packets of Pods pass itself.", mutate: func(h *Host, _ *Want) {
			h.Firewall.Forward = []nft.BaseChain{{Table: nft.TableName{Family: nft.IPv4, Name: "filter"}, Name: "FORWARD"}}
		}},
		"OwnedFirewall": {reason: "Nobody but firewalld can change it.", mutate: func(h *Host, _ *Want) {
			h.Firewall.Forward = []nft.BaseChain{{Table: nft.TableName{Family: nft.Inet, Name: "firewalld"}, Name: "filter_FORWARD", Owned: true}}
		}, warnings: []string{"firewall"}},
		"ClosedHost": {reason: "Whether Pods may reach the host is its owner's decision.", mutate: func(h *Host, _ *Want) {
			h.Firewall.Input = []nft.BaseChain{{Table: nft.TableName{Family: nft.IPv4, Name: "filter"}, Name: "INPUT"}}
		}, warnings: []string{"firewall input"}},
		"LegacyFirewall":     {reason: "It may drop, and cannot be changed from here.", mutate: func(h *Host, _ *Want) { h.Firewall.Legacy = true }, warnings: []string{"iptables-legacy"}},
		"UnreadableFirewall": {reason: "It may drop.", mutate: func(h *Host, _ *Want) { h.FirewallError = errors.New("broken") }, warnings: []string{"firewall"}},
		"NoCgroups":          {reason: "Nothing can be limited.", mutate: func(h *Host, _ *Want) { h.CgroupVersion = 0 }, missing: []string{"no cgroup hierarchy"}},
		"NoMemory":           {reason: "Debian for ARM boots without it.", mutate: func(h *Host, _ *Want) { h.Controllers = []string{"cpu", "pids", "cpuset", "io"} }, missing: []string{"v2 without memory", "cgroup_enable=memory"}},
		"V1NeedsDevices": {reason: "In v1 device rules are a controller.", mutate: func(h *Host, _ *Want) {
			h.CgroupVersion = 1
			h.Controllers = append(h.Controllers, "cpuacct", "freezer", "blkio")
		}, missing: []string{"v1 without devices"}},
		"NoCpuset":     {reason: "Only some features need it.", mutate: func(h *Host, _ *Want) { h.Controllers = []string{"cpu", "pids", "memory", "io"} }, warnings: []string{"optional cgroup controllers"}},
		"NoNftables":   {reason: "Services would have no addresses.", mutate: func(h *Host, _ *Want) { h.Kernel["nf_tables"] = errors.New("protocol not supported") }, missing: []string{"nf_tables", "protocol not supported", "kernel module"}},
		"NoOverlay":    {reason: "Images could not be unpacked.", mutate: func(h *Host, _ *Want) { h.Overlay = errors.New("no such device") }, missing: []string{"overlayfs", "no such device"}},
		"NoPrograms":   {reason: "Only bin/flyball was copied.", mutate: func(h *Host, _ *Want) { h.MissingFiles = []string{"/opt/runc"} }, missing: []string{"/opt/runc", "make build"}},
		"OtherRuntime": {reason: "Another runtime needs no programs of ours.", mutate: func(h *Host, w *Want) { h.MissingFiles, w.BundledRuntime = []string{"/opt/runc"}, false }},
		"DiskFull":     {reason: "etcd would stop.", mutate: func(h *Host, _ *Want) { h.Disk.FreeBytes = 5 << 20 }, missing: []string{"full", "5 MiB free, 1024 MiB needed"}},
		"InodesFull":   {reason: "Bytes are not all.", mutate: func(h *Host, _ *Want) { h.Disk.Inodes, h.Disk.FreeInodes = 1<<20, 3 }, missing: []string{"3 inodes"}},
		"ReadOnly":     {reason: "The directory cannot be written to.", mutate: func(h *Host, _ *Want) { h.Disk = Disk{WriteError: errors.New("read-only file system")} }, missing: []string{"read-only", "--data-dir"}},
		"RootDiskFull": {reason: "Pods could write nothing.", mutate: func(h *Host, _ *Want) { h.RootDisk.FreeBytes = 5 << 20 }, missing: []string{"/var/lib/kubelet is full", "--root-dir"}},
		"NoRootDir":    {reason: "A server has no Pods.", mutate: func(h *Host, w *Want) { h.RootDisk, w.RootDir = Disk{}, "" }},
		"OtherKubelet": {reason: "Two would end each other's Pods.", mutate: func(h *Host, _ *Want) {
			h.RootDir = Obstacle{Detail: "it has files of another kubelet", Remedy: "set kubelet.rootDir"}
		}, missing: []string{"kubelet root directory", "another kubelet", "kubelet.rootDir"}},
		"PortUsed": {reason: "The process is named.", mutate: func(h *Host, _ *Want) { h.Ports = map[int]Listener{6443: {PID: 7, Name: "k3s"}} }, missing: []string{"port 6443 (API server)", "k3s (pid 7)"}},
		"OwnPort":  {reason: "It is Flyball itself that listens.", mutate: func(h *Host, w *Want) { h.Ports, w.Running = map[int]Listener{6443: {PID: 7, Name: "flyball"}}, true }},
		"AddressInRange": {reason: "Pods could not reach it.", mutate: func(h *Host, _ *Want) {
			h.Addresses = append(h.Addresses, Address{"tun0", netip.MustParsePrefix("10.42.7.1/24")})
		}, missing: []string{"clusterCIDR 10.42.0.0/16", "address 10.42.7.1/24 of interface tun0"}},
		"RouteAroundRange": {reason: "A VPN that takes all of 10/8 includes ours.", mutate: func(h *Host, _ *Want) { h.Routes = append(h.Routes, Route{"wg0", netip.MustParsePrefix("10.0.0.0/8")}) }, missing: []string{"clusterCIDR", "route 10.0.0.0/8 of interface wg0", "serviceCIDR"}},
		"OwnLeftovers": {
			reason: "After a kill -9 our own bridge, routes and DNS address are still there.",
			mutate: func(h *Host, _ *Want) {
				h.Addresses = append(h.Addresses, Address{"flyball0", netip.MustParsePrefix("10.42.0.1/24")}, Address{"lo", netip.MustParsePrefix("10.43.0.10/32")})
				h.Routes = append(h.Routes, Route{"flyball0", netip.MustParsePrefix("10.42.0.0/24")}, Route{"", netip.MustParsePrefix("10.42.0.0/16")})
			},
		},
		"ForeignNodeIP": {reason: "Nobody could reach the node.", mutate: func(_ *Host, w *Want) { w.NodeIP = netip.MustParseAddr("192.0.2.99") }, missing: []string{"192.0.2.99", "no interface"}},
	}
	for name, tc := range tests {
		t.Run(name, func(t *testing.T) {
			h, w := goodHost(), want()
			tc.mutate(&h, &w)
			findings := Check(h, w)
			checkMissing(t, tc.reason, Missing(findings), tc.missing)
			var warnings []string
			for _, f := range findings {
				if !f.OK && f.Remedy == "" {
					t.Errorf("%s\n%s has no remedy", tc.reason, f.Name)
				}
				if !f.OK && !f.Required {
					warnings = append(warnings, f.Name)
				}
			}
			if diff := cmp.Diff(tc.warnings, warnings); len(tc.missing) == 0 && diff != "" {
				t.Errorf("%s\nwarnings: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}

func checkMissing(t *testing.T, reason string, err error, want []string) {
	t.Helper()
	if (err != nil) != (len(want) > 0) {
		t.Fatalf("%s\nMissing() = %v, want one that says %q", reason, err, want)
	}
	if err == nil {
		return
	}
	rest := err.Error()
	for _, part := range want {
		_, after, found := strings.Cut(rest, part)
		if !found {
			t.Fatalf("%s\nMissing() = %q does not say %q, or not in this order", reason, err, part)
		}
		rest = after
	}
}

func TestParse(t *testing.T) {
	dst := &net.IPNet{IP: net.IPv4(10, 42, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}
	for want, route := range map[Route]netlink.Route{
		{"lo", netip.MustParsePrefix("0.0.0.0/0")}:    {LinkIndex: 1, Type: unix.RTN_UNICAST},
		{"lo", netip.MustParsePrefix("10.42.0.0/16")}: {Dst: dst, MultiPath: []*netlink.NexthopInfo{{LinkIndex: 1}}, Type: unix.RTN_UNICAST},
		{"", netip.MustParsePrefix("10.42.0.0/16")}:   {Dst: dst, LinkIndex: 1, Type: unix.RTN_UNREACHABLE},
	} {
		if got := routeOf(route); got != want {
			t.Errorf("routeOf(%v) = %v, want %v", route, got, want)
		}
	}

	mounts := "cgroup /sys/fs/cgroup/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup /hidden cgroup rw,memory 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n"
	version, controllers := cgroupsV1(mounts, func(point string) bool { return point != "/hidden" })
	if version != 1 || !cmp.Equal(controllers, []string{"rw", "cpu", "cpuacct"}) {
		t.Errorf("cgroupsV1() = %d, %q", version, controllers)
	}
}

// TestListener finds this test itself.
func TestListener(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got, used := listener(l.Addr().(*net.TCPAddr).Port)
	if !used || got.PID != os.Getpid() {
		t.Errorf("listener() = %+v, %t, want this process, %d", got, used, os.Getpid())
	}
}

// TestFirewall: the user reads which chain drops packets of Pods, and what to do about it.
func TestFirewall(t *testing.T) {
	filter := nft.BaseChain{Table: nft.TableName{Family: nft.IPv4, Name: "filter"}, Name: "FORWARD"}
	firewalld := nft.BaseChain{Table: nft.TableName{Family: nft.Inet, Name: "firewalld"}, Name: "filter_FORWARD", Owned: true}
	for name, tc := range map[string]struct {
		reason   string
		firewall Firewall
		want     []string
	}{
		"Open": {reason: "Nothing is to be said."},
		"Docker": {
			reason: "Flyball opens it.", firewall: Firewall{Forward: []nft.BaseChain{filter}},
			want: []string{"firewall: chain FORWARD of table ip filter drops what is forwarded; flyball adds rules that let packets from and to Pods pass"},
		},
		"Owned": {
			reason: "Flyball can open one of the two alone.", firewall: Firewall{Forward: []nft.BaseChain{firewalld, filter}},
			want: []string{
				"firewall: chain filter_FORWARD of table inet firewalld drops what is forwarded, and flyball cannot add rules: the program that made the table owns it; " +
					"for firewalld, set NftablesTableOwner=no in /etc/firewalld/firewalld.conf and restart it, or have it accept packets from and to 10.42.0.0/16 itself",
				"firewall: chain FORWARD of table ip filter drops what is forwarded; flyball adds rules that let packets from and to Pods pass",
			},
		},
		"Input": {
			reason:   "Each firewall has a command of its own.",
			firewall: Firewall{Input: []nft.BaseChain{{Table: nft.TableName{Family: nft.IPv4, Name: "filter"}, Name: "INPUT"}, {Table: nft.TableName{Family: nft.Inet, Name: "firewalld"}, Name: "filter_INPUT"}}},
			want: []string{
				"firewall input: chain INPUT of table ip filter drops what Pods send to this host, and no rule was found that accepts packets from 10.42.0.0/16: " +
					"Pods may not reach the cluster DNS and the API server; with ufw run `ufw allow from 10.42.0.0/16`, otherwise " +
					"`nft insert rule ip filter INPUT ip saddr 10.42.0.0/16 accept`, and keep that rule where the firewall keeps its own",
				"firewall input: chain filter_INPUT of table inet firewalld drops what Pods send to this host, and no rule was found that accepts packets from 10.42.0.0/16: " +
					"Pods may not reach the cluster DNS and the API server; run `firewall-cmd --permanent --zone=trusted --add-source=10.42.0.0/16 && firewall-cmd --reload`",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := goodHost()
			h.Firewall = tc.firewall
			var got []string
			for _, f := range firewall(h, want()) {
				got = append(got, f.String())
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s\nfindings: -want, +got:\n%s", tc.reason, diff)
			}
		})
	}
}
