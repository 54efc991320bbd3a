package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"flyball.dev/nft"
)

// namespace is a network namespace of the test's own: a thread that never leaves it.
type namespace struct {
	t    *testing.T
	path string
	work chan func()
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a network namespace needs root")
	}
	ns, ready := &namespace{t: t, work: make(chan func())}, make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNET)
		ns.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		if lo, lerr := netlink.LinkByName("lo"); err == nil && lerr == nil {
			err = netlink.LinkSetUp(lo)
		}
		ready <- err
		for f := range ns.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatalf("making a network namespace: %v", err)
	}
	t.Cleanup(func() { close(ns.work) })
	return ns
}

// do runs f on the namespace's thread. If f ends the test there, it ends here too.
func (ns *namespace) do(f func()) {
	ns.t.Helper()
	done, returned := make(chan struct{}), false
	ns.work <- func() { defer close(done); f(); returned = true }
	if <-done; !returned {
		ns.t.FailNow()
	}
}

func testConfig(t *testing.T) Config {
	t.Helper()
	return Config{NodeName: "a", ClusterCIDRs: clusters, ServiceCIDRs: services, ClusterDNS: dnsAddrs, CNIConfDir: t.TempDir(), IPAMDir: filepath.Join(t.TempDir(), "networks")}
}

func testNodes() []Node {
	return []Node{node("a", "10.42.0.0/24", "192.0.2.2"), node("b", "10.42.1.0/24", "192.0.2.3")}
}

// store holds Node objects as the cache does.
func store(t *testing.T, nodes ...Node) cache.Store {
	t.Helper()
	s := cache.NewStore(cache.MetaNamespaceKeyFunc)
	for _, n := range nodes {
		obj := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name}}
		for _, cidr := range n.PodCIDRs {
			obj.Spec.PodCIDRs = append(obj.Spec.PodCIDRs, cidr.String())
		}
		for _, a := range n.InternalIPs {
			obj.Status.Addresses = append(obj.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a.String()})
		}
		if err := s.Add(obj); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// addUplink gives the namespace an interface with the node's address, on a link that leads nowhere.
func addUplink(t *testing.T) {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1400}, PeerName: "world"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p("192.0.2.2/24"))}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(p("0.0.0.0/0")), Gw: net.IPv4(192, 0, 2, 1)}); err != nil {
		t.Fatal(err)
	}
}

func TestSetupRunCleanup(t *testing.T) {
	node, cfg := newNamespace(t), testConfig(t)
	node.do(func() {
		addUplink(t)
		before, err := observe()
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // idempotent
			if err := Setup(cfg); err != nil {
				t.Fatal(err)
			}
		}
		for _, address := range []string{"10.42.0.7:80", "10.43.0.7:80"} {
			if _, err := net.DialTimeout("tcp", address, time.Second); err == nil || !strings.Contains(err.Error(), "unreachable") && !strings.Contains(err.Error(), "no route to host") {
				t.Errorf("dialing %s: %v, want unreachable", address, err)
			}
		}
		l := controller{cfg: cfg, nodes: store(t, testNodes()...)}
		for range 2 {
			if done, err := l.sync(klog.Background()); !done || err != nil {
				t.Fatalf("syncing: %v, %v", done, err)
			}
		}
		h, err := observe()
		if err != nil {
			t.Fatal(err)
		}
		w := want(cfg.NodeName, clusters, services, testNodes())
		w.MTU = 1400
		if rest := append(planBase(clusters, services, dnsAddrs, h), plan(w, h)...); len(rest) > 0 {
			t.Errorf("left to do after syncing: %v", rest)
		}
		conf, err := os.ReadFile(filepath.Join(cfg.CNIConfDir, conflistName))
		if err != nil || !bytes.Contains(conf, []byte(`"mtu": 1400`)) {
			t.Errorf("CNI configuration: %v\n%s", err, conf)
		}
		checkTable(t)

		results := filepath.Join(t.TempDir(), "cni", "results")
		kept := filepath.Join(results, networkName+"-0123-eth0")
		if err := errors.Join(os.MkdirAll(results, 0o755), os.WriteFile(kept, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := cleanup(cfg, results); err != nil {
				t.Fatal(err)
			}
		}
		after, err := observe()
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprintf("%+v", after), fmt.Sprintf("%+v", before); got != want {
			t.Errorf("after Cleanup:\n%s\nwant as before Setup:\n%s", got, want)
		}
		left, _ := filepath.Glob(filepath.Join(cfg.CNIConfDir, "*"))
		if _, err := os.Stat(filepath.Dir(results)); len(left) > 0 || !os.IsNotExist(err) {
			t.Errorf("files left: %v, %v", left, err)
		}
	})
}

// checkTable compares the table in the kernel with what should be there.
func checkTable(t *testing.T) {
	t.Helper()
	have, err := nft.Kernel{}.Read(masqueradeTable)
	if err != nil {
		t.Fatal(err)
	}
	if rest := nft.Diff(have, masquerade(clusters)); len(have.Chains) != 1 || len(have.Chains[0].Rules) != 1 || !rest.Empty() {
		t.Errorf("the table is %s\nleft to do: %s", have, &rest)
	}
}

// addPod calls the CNI plugin as the container runtime does, and returns the Pod's address.
func addPod(t *testing.T, cfg Config, id string, pod *namespace) netip.Addr {
	t.Helper()
	bin, err := filepath.Abs("../bin/cni")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "bridge")); err != nil {
		t.Skip("`make bundled` builds what this test runs")
	}
	conf, err := os.ReadFile(filepath.Join(cfg.CNIConfDir, conflistName))
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		CNIVersion string           `json:"cniVersion"`
		Name       string           `json:"name"`
		Plugins    []map[string]any `json:"plugins"`
	}
	if err := json.Unmarshal(conf, &list); err != nil {
		t.Fatal(err)
	}
	list.Plugins[0]["cniVersion"], list.Plugins[0]["name"] = list.CNIVersion, list.Name
	stdin, err := json.Marshal(list.Plugins[0])
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(bin, "bridge"))
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=" + id, "CNI_NETNS=" + pod.path, "CNI_IFNAME=eth0", "CNI_PATH=" + bin, "PATH=/nowhere"}
	cmd.Stdin = bytes.NewReader(stdin)
	began := time.Now()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("CNI ADD: %v\n%s", err, out)
	}
	t.Logf("CNI ADD took %s", time.Since(began))
	var result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(out, &result); err != nil || len(result.IPs) != 1 {
		t.Fatalf("CNI result: %v\n%s", err, out)
	}
	return result.IPs[0].Address.Addr()
}

// TestPodTraffic has two Pods on one node talk: to each other, to a Service address that is
// translated as the proxy would, from the host, and to the world outside, where the node's address
// must be seen.
func TestPodTraffic(t *testing.T) {
	node, client, server, world, cfg := newNamespace(t), newNamespace(t), newNamespace(t), newNamespace(t), testConfig(t)
	var serverIP, clientIP netip.Addr
	node.do(func() {
		addUplink(t)
		give(t, "world", world)
		if err := Setup(cfg); err != nil {
			t.Fatal(err)
		}
		if _, err := (&controller{cfg: cfg, nodes: store(t, testNodes()...)}).sync(klog.Background()); err != nil {
			t.Fatal(err)
		}
		clientIP, serverIP = addPod(t, cfg, "client", client), addPod(t, cfg, "server", server)
		translate(t, "10.43.0.99", serverIP)
	})
	world.do(func() {
		link, err := netlink.LinkByName("world")
		if err == nil {
			err = errors.Join(netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p("192.0.2.1/24"))}), netlink.LinkSetUp(link))
		}
		if err != nil {
			t.Fatal(err)
		}
		serveSource(t, "192.0.2.1:8080")
	})
	server.do(func() { serveSource(t, "0.0.0.0:8080") })
	node.do(func() { serveSource(t, "192.0.2.2:8080") })
	ask := func(from *namespace, name, address, want string) {
		t.Helper()
		from.do(func() {
			conn, err := net.DialTimeout("tcp", address, 5*time.Second)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return
			}
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
			got, err := io.ReadAll(conn)
			if err != nil || string(got) != want {
				t.Errorf("%s: the server saw %q (%v), want %q", name, got, err, want)
			}
		})
	}
	pod := net.JoinHostPort(serverIP.String(), "8080")
	ask(client, "Pod to Pod", pod, clientIP.String())
	ask(client, "Pod to Service", "10.43.0.99:8080", clientIP.String())
	ask(node, "host to Pod", pod, "10.42.0.1")
	ask(node, "host to Service", "10.43.0.99:8080", "10.42.0.1")
	ask(client, "Pod to the world", "192.0.2.1:8080", "192.0.2.2")
	ask(client, "Pod to host", "192.0.2.2:8080", clientIP.String())
}

// give moves an interface into another namespace.
func give(t *testing.T, name string, to *namespace) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(to.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if err := netlink.LinkSetNsFd(link, int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// serveSource answers each connection with the address that it comes from.
func serveSource(t *testing.T, address string) {
	t.Helper()
	l, err := net.Listen("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(conn.RemoteAddr().String())
			_, _ = io.WriteString(conn, host)
			_ = conn.Close()
		}
	}()
}

// translate is a proxy for one address.
func translate(t *testing.T, from string, to netip.Addr) {
	t.Helper()
	var table nft.Table
	for _, hook := range []nft.Hook{nft.Prerouting, nft.Output} {
		table.Chains = append(table.Chains, nft.Chain{
			Name: string(hook), Base: nft.Base{Type: nft.NAT, Hook: hook, Priority: nft.PriorityDstNAT},
			Rules: []nft.Rule{nft.R(
				nft.DestinationIn(hostPrefix(netip.MustParseAddr(from))), nft.DNAT{To: netip.AddrPortFrom(to, 8080)})},
		})
	}
	tx := nft.Transaction{Table: nft.TableName{Name: "test"}}
	tx.Create(table)
	if err := (nft.Kernel{}).Apply(tx); err != nil {
		t.Fatal(err)
	}
}

func TestSetupRefusesOverlap(t *testing.T) {
	node, cfg := newNamespace(t), testConfig(t)
	node.do(func() {
		addUplink(t)
		cfg.ClusterCIDRs = []netip.Prefix{p("192.0.2.0/24")}
		err := Setup(cfg)
		if err == nil || !strings.Contains(err.Error(), "192.0.2.2/24 on eth0") {
			t.Errorf("got %v, want an error that names the address", err)
		}
		h, oerr := observe()
		if oerr != nil || len(h.Routes) > 0 {
			t.Errorf("routes after a refusal: %v (%v)", h.Routes, oerr)
		}
	})
}
