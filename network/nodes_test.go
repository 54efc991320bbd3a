package network

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"k8s.io/klog/v2"
)

// TestTrafficBetweenNodes has Pods of two nodes, each in a network namespace of its own with a link
// between them, talk to each other and to the other host.
func TestTrafficBetweenNodes(t *testing.T) {
	nodes := []*namespace{newNamespace(t), newNamespace(t)}
	pods := []*namespace{newNamespace(t), newNamespace(t)}
	names, addresses := []string{"a", "b"}, []string{"192.0.2.2/24", "192.0.2.3/24"}
	connectNodes(t, nodes, addresses)

	var controllers []*controller
	var podIPs []netip.Addr
	for i, node := range nodes {
		node.do(func() {
			cfg := testConfig(t)
			cfg.NodeName = names[i]
			// Some distributions drop packets that come from where no answer would go: here answers
			// always do.
			if err := setSysctl("/proc/sys/net/ipv4/conf/all/rp_filter", "1"); err != nil {
				t.Fatal(err)
			}
			if err := Setup(cfg); err != nil {
				t.Fatal(err)
			}
			controllers = append(controllers, &controller{cfg: cfg, nodes: store(t, testNodes()...)})
			if done, err := controllers[i].sync(klog.Background()); !done || err != nil {
				t.Fatalf("syncing: %v, %v", done, err)
			}
			podIPs = append(podIPs, addPod(t, cfg, "pod", pods[i]))
			serveSource(t, p(addresses[i]).Addr().String()+":8080")
		})
		pods[i].do(func() { serveSource(t, "0.0.0.0:8080") })
	}
	nodes[0].do(func() { translate(t, "10.43.0.99", podIPs[1]) })

	ask := func(from *namespace, reason, to, want string) {
		t.Helper()
		from.do(func() {
			got, err := source(to)
			if err != nil || got != want {
				t.Errorf("%s: the server at %s saw %q (%v), want %q", reason, to, got, err, want)
			}
		})
	}
	at := func(a netip.Addr) string { return net.JoinHostPort(a.String(), "8080") }
	ask(pods[0], "a Pod keeps its address on the way to another node's", at(podIPs[1]), podIPs[0].String())
	ask(pods[1], "and back", at(podIPs[0]), podIPs[1].String())
	ask(pods[0], "and through a Service", "10.43.0.99:8080", podIPs[0].String())
	ask(nodes[0], "a node reaches the other's Pods by its own address", at(podIPs[1]), "192.0.2.2")
	ask(nodes[0], "and through a Service by its bridge's", "10.43.0.99:8080", "10.42.0.1")
	ask(pods[0], "another host does not see Pods, which it may have no route to", "192.0.2.3:8080", "192.0.2.2")

	nodes[0].do(func() {
		controllers[0].nodes = store(t, testNodes()[0]) // the other has left
		if _, err := controllers[0].sync(klog.Background()); err != nil {
			t.Fatal(err)
		}
		if _, err := source(at(podIPs[1])); err == nil || !strings.Contains(err.Error(), "no route to host") && !strings.Contains(err.Error(), "unreachable") {
			t.Errorf("dialing a Pod of a node that has left: %v, want unreachable", err)
		}
	})
}

// TestUnreachableNode: a node in a network that this host is not in costs the way to its Pods, and
// nothing else.
func TestUnreachableNode(t *testing.T) {
	host, cfg := newNamespace(t), testConfig(t)
	host.do(func() {
		addUplink(t)
		if err := Setup(cfg); err != nil {
			t.Fatal(err)
		}
		far := node("far", "10.42.7.0/24", "198.51.100.9")
		done, err := (&controller{cfg: cfg, nodes: store(t, append(testNodes(), far)...)}).sync(klog.Background())
		if !done {
			t.Error("Pods have no network because of a node that cannot be reached")
		}
		if err == nil || !strings.Contains(err.Error(), "198.51.100.9") || !strings.Contains(err.Error(), "--node-ip") {
			t.Errorf("error is %v, want one that names the address and what to do", err)
		}
		routes, err := Routes()
		if err != nil || !slices.Contains(routes, p("10.42.1.0/24")) || slices.Contains(routes, far.PodCIDRs[0]) {
			t.Errorf("our routes lead to %v (%v), want the near node's among them and not the far one's", routes, err)
		}
	})
}

// connectNodes puts a link between two namespaces.
func connectNodes(t *testing.T, nodes []*namespace, addresses []string) {
	t.Helper()
	nodes[0].do(func() {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer"}); err != nil {
			t.Fatal(err)
		}
		give(t, "peer", nodes[1])
	})
	for i, name := range []string{"eth0", "peer"} {
		nodes[i].do(func() {
			link, err := netlink.LinkByName(name)
			if err == nil {
				err = errors.Join(netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p(addresses[i]))}), netlink.LinkSetUp(link))
			}
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// source asks serveSource.
func source(address string) (string, error) {
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	got, err := io.ReadAll(conn)
	return string(got), err
}
