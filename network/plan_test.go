package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"flyball.dev/nft"
)

var (
	cluster = netip.MustParsePrefix("10.42.0.0/16")
	service = netip.MustParsePrefix("10.43.0.0/16")
	dns     = netip.MustParseAddr("10.43.0.10")

	clusters, services = []netip.Prefix{cluster}, []netip.Prefix{service}
	dnsAddrs           = []netip.Addr{dns}

	same = cmp.Options{cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{}), cmpopts.EquateEmpty()}
)

func p(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// node has one range for Pods and perhaps an address.
func node(name, cidr string, ips ...string) Node {
	n := Node{Name: name, PodCIDRs: []netip.Prefix{p(cidr)}}
	for _, ip := range ips {
		n.InternalIPs = append(n.InternalIPs, netip.MustParseAddr(ip))
	}
	return n
}

func TestConflict(t *testing.T) {
	for name, tc := range map[string]struct {
		reason string
		host   Host
		want   string
	}{
		"Default": {
			reason: "a default route leads everywhere and overlaps nothing",
			host:   Host{Foreign: []Route{{To: p("0.0.0.0/0"), Dev: "eth0"}}, Addresses: map[string][]netip.Prefix{"eth0": {p("192.0.2.2/24")}}},
		},
		"Nowhere": {
			reason: "another program's unreachable route means the same as ours",
			host:   Host{Foreign: []Route{{To: cluster, Unreachable: true}}},
		},
		"Address": {
			reason: "the network of an interface lies in the cluster CIDR",
			host:   Host{Addresses: map[string][]netip.Prefix{"eth1": {p("10.42.7.1/24")}}},
			want:   "cluster CIDR 10.42.0.0/16: it overlaps the host's address 10.42.7.1/24 on eth1",
		},
		"Route": {
			reason: "a route to a larger network, such as a VPN's, would lose what the cluster takes",
			host:   Host{Foreign: []Route{{To: p("10.0.0.0/8"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "tun0"}}},
			want:   "cluster CIDR 10.42.0.0/16: it overlaps the host's route 10.0.0.0/8 via 192.0.2.1 dev tun0",
		},
		"Service": {
			reason: "the Service CIDR is checked like the cluster CIDR",
			host:   Host{Foreign: []Route{{To: p("10.43.128.0/17"), Dev: "docker0"}}},
			want:   "Service CIDR 10.43.0.0/16: it overlaps the host's route 10.43.128.0/17 dev docker0",
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := conflict(clusters, services, tc.host)
			if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s: got error %v, want %q", tc.reason, err, tc.want)
			}
		})
	}
}

func TestWant(t *testing.T) {
	self := node("a", "10.42.0.0/24", "192.0.2.2")
	other := node("b", "10.42.1.0/24", "192.0.2.3")
	toServices := Route{To: service, Dev: Bridge}
	for name, tc := range map[string]struct {
		reason string
		nodes  []Node
		want   Wanted
	}{
		"Unknown": {reason: "the node has not registered"},
		"NoCIDR":  {reason: "the node has no podCIDR yet, so it has no Pods and needs no routes", nodes: []Node{{Name: "a"}, other}},
		"Foreign": {
			reason: "a podCIDR outside of the cluster CIDR would take the host's packets",
			nodes:  []Node{node("a", "192.168.0.0/24")},
		},
		"Alone": {
			reason: "the first address is the gateway's",
			nodes:  []Node{self},
			want:   Wanted{PodCIDRs: self.PodCIDRs, Gateways: []netip.Prefix{p("10.42.0.1/24")}, Routes: []Route{toServices}},
		},
		"Two": {
			reason: "the Pods of another node are behind its InternalIP",
			nodes:  []Node{other, self},
			want: Wanted{PodCIDRs: self.PodCIDRs, Gateways: []netip.Prefix{p("10.42.0.1/24")}, Routes: []Route{
				{To: other.PodCIDRs[0], Via: other.InternalIPs[0]}, toServices,
			}},
		},
		"Twins": {
			reason: "another node that claims our own podCIDR does not get it",
			nodes:  []Node{self, node("c", "10.42.0.0/24", "192.0.2.3"), node("d", "10.42.1.0/24")},
			want:   Wanted{PodCIDRs: self.PodCIDRs, Gateways: []netip.Prefix{p("10.42.0.1/24")}, Routes: []Route{toServices}},
		},
		"Rivals": {
			reason: "of two nodes with one podCIDR the first gets it, whatever the order; else two routes would replace each other for ever",
			nodes:  []Node{node("c", "10.42.1.0/24", "192.0.2.4"), self, other},
			want: Wanted{PodCIDRs: self.PodCIDRs, Gateways: []netip.Prefix{p("10.42.0.1/24")}, Routes: []Route{
				{To: other.PodCIDRs[0], Via: other.InternalIPs[0]}, toServices,
			}},
		},
		"Impostors": {
			reason: "a node with our address, or with that of a Pod, is not a gateway",
			nodes: []Node{
				self,
				node("b", "10.42.1.0/24", "192.0.2.2"),
				node("c", "10.42.2.0/24", "10.42.3.4"),
			},
			want: Wanted{PodCIDRs: self.PodCIDRs, Gateways: []netip.Prefix{p("10.42.0.1/24")}, Routes: []Route{toServices}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tc.want, want("a", clusters, services, tc.nodes), same); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
		})
	}
}

// TestWantTwoFamilies has nodes with a range and an address of each family: the Pods of another
// node are reached through its address of the same one.
func TestWantTwoFamilies(t *testing.T) {
	dual := func(name, four, fourIP, six, sixIP string) Node {
		n := node(name, four, fourIP, sixIP)
		n.PodCIDRs = append(n.PodCIDRs, p(six))
		return n
	}
	both := []netip.Prefix{cluster, p("fd00:42::/56")}
	nodes := []Node{
		dual("a", "10.42.0.0/24", "192.0.2.2", "fd00:42::/64", "2001:db8::2"),
		dual("b", "10.42.1.0/24", "192.0.2.3", "fd00:42:0:1::/64", "2001:db8::3"),
	}
	wanted := Wanted{
		PodCIDRs: nodes[0].PodCIDRs, Gateways: []netip.Prefix{p("10.42.0.1/24"), p("fd00:42::1/64")},
		Routes: []Route{
			{To: p("10.42.1.0/24"), Via: netip.MustParseAddr("192.0.2.3")},
			{To: service, Dev: Bridge},
			{To: p("fd00:42:0:1::/64"), Via: netip.MustParseAddr("2001:db8::3")},
		},
	}
	got := want("a", both, services, nodes)
	if diff := cmp.Diff(wanted, got, same); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	conf := string(conflist(got, "/networks", ""))
	for _, part := range []string{`"subnet": "fd00:42::/64"`, `"gateway": "fd00:42::1"`, `"dst": "::/0"`, `"dst": "0.0.0.0/0"`} {
		if !strings.Contains(conf, part) {
			t.Errorf("the CNI configuration has no %s:\n%s", part, conf)
		}
	}
}

func TestPlan(t *testing.T) {
	gateway := p("10.42.0.1/24")
	wanted := Wanted{PodCIDRs: []netip.Prefix{p("10.42.0.0/24")}, Gateways: []netip.Prefix{gateway}, MTU: 1450, Routes: []Route{{To: service, Dev: Bridge}}}
	ready := Host{HasBridge: true, BridgeUp: true, BridgeMTU: 1450, BridgeAddress: []netip.Prefix{gateway}, Routes: wanted.Routes}
	for name, tc := range map[string]struct {
		reason string
		wanted Wanted
		host   func(Host) Host
		want   []string
	}{
		"Done":    {reason: "nothing is left to do", wanted: wanted},
		"Fresh":   {reason: "everything is made, the bridge first", wanted: wanted, host: func(Host) Host { return Host{} }, want: []string{"add bridge flyball0", "add address 10.42.0.1/24 on flyball0", "add route 10.43.0.0/16 dev flyball0"}},
		"Renamed": {reason: "the node came back with another podCIDR", wanted: wanted, host: func(h Host) Host { h.BridgeAddress = []netip.Prefix{p("10.42.9.1/24")}; return h }, want: []string{"remove address 10.42.9.1/24 on flyball0", "add address 10.42.0.1/24 on flyball0"}},
		"MTU":     {reason: "the way out has another MTU now", wanted: wanted, host: func(h Host) Host { h.BridgeMTU = 1500; return h }, want: []string{"set MTU 1450 on flyball0"}},
		"NodeLeft": {reason: "a route to a node that is gone is removed, an unreachable one is not", wanted: wanted, host: func(h Host) Host {
			h.Routes = append(slices.Clone(h.Routes), Route{To: p("10.42.1.0/24"), Via: netip.MustParseAddr("192.0.2.3")}, Route{To: cluster, Unreachable: true, Metric: lastMetric})
			return h
		}, want: []string{"remove route 10.42.1.0/24 via 192.0.2.3"}},
		"NoCIDR": {reason: "without a podCIDR the bridge is left as it is: its Pods may still run", wanted: Wanted{}, want: []string{"remove route 10.43.0.0/16 dev flyball0"}},
	} {
		t.Run(name, func(t *testing.T) {
			host := ready
			if tc.host != nil {
				host = tc.host(host)
			}
			var got []string
			for _, a := range plan(tc.wanted, host) {
				got = append(got, a.String())
			}
			if diff := cmp.Diff(tc.want, got, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s: -want +got\n%s", tc.reason, diff)
			}
		})
	}
}

// TestConverges: from any state, one round of actions leads to a state in which nothing is left to
// do, and at no step does an unreachable route go away. After removal nothing of ours is left.
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.Custom(func(t *rapid.T) Node {
			i := rapid.IntRange(0, 5).Draw(t, "node")
			n := Node{Name: fmt.Sprint("n", i)}
			if rapid.Bool().Draw(t, "registered") {
				n.PodCIDRs = []netip.Prefix{p(fmt.Sprintf("10.42.%d.0/24", rapid.IntRange(0, 5).Draw(t, "cidr")))}
				n.InternalIPs = []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(rapid.IntRange(2, 5).Draw(t, "ip"))})}
			}
			return n
		})
		draw := func(label string) []Node {
			nodes := rapid.SliceOfN(nodes, 0, 6).Draw(t, label)
			seen := map[netip.Prefix]bool{}
			return slices.DeleteFunc(nodes, func(n Node) bool { // two nodes never get one podCIDR
				if len(n.PodCIDRs) == 0 {
					return false
				}
				twice := seen[n.PodCIDRs[0]]
				seen[n.PodCIDRs[0]] = true
				return twice
			})
		}
		var h Host
		step := func(nodes []Node) []Action {
			w := want("n0", clusters, services, nodes)
			w.MTU = 1500
			return append(planBase(clusters, services, dnsAddrs, h), plan(w, h)...)
		}
		for _, nodes := range [][]Node{nil, draw("before"), draw("after")} {
			for _, a := range step(nodes) {
				if a.Do == RemoveRoute && a.Route.Unreachable {
					t.Fatalf("%s leaves packets without a wall", a)
				}
				h = simulate(h, a)
			}
			if rest := step(nodes); len(rest) > 0 {
				t.Fatalf("after one round %v is left to do", rest)
			}
		}
		for _, a := range planRemoval(dnsAddrs, h) {
			h = simulate(h, a)
		}
		if len(h.Routes)+len(h.LoopbackAddresses) > 0 || h.HasBridge {
			t.Fatalf("left after removal: %+v", h)
		}
	})
}

// simulate is the kernel, as far as actions go.
func simulate(h Host, a Action) Host {
	without := func(list []Route, r Route) []Route {
		return slices.DeleteFunc(slices.Clone(list), func(o Route) bool { return o == r })
	}
	addresses := &h.BridgeAddress
	if a.Link == "lo" {
		addresses = &h.LoopbackAddresses
	}
	switch a.Do {
	case AddBridge:
		h.HasBridge, h.BridgeUp, h.BridgeMTU = true, true, a.MTU
	case SetMTU:
		h.BridgeMTU = a.MTU
	case AddAddress:
		*addresses = append(slices.Clone(*addresses), a.Address)
	case RemoveAddress:
		*addresses = slices.DeleteFunc(slices.Clone(*addresses), func(o netip.Prefix) bool { return o == a.Address })
	case AddRoute:
		// One route for a network and metric: another one replaces it.
		h.Routes = append(slices.DeleteFunc(slices.Clone(h.Routes), func(o Route) bool { return o.To == a.Route.To && o.Metric == a.Route.Metric }), a.Route)
	case RemoveRoute:
		h.Routes = without(h.Routes, a.Route)
	case RemoveLink:
		h.HasBridge, h.BridgeUp, h.BridgeAddress = false, false, nil
		h.Routes = slices.DeleteFunc(slices.Clone(h.Routes), func(o Route) bool { return o.Dev == Bridge })
	}
	return h
}

// TestMasquerade sends packets through the table.
func TestMasquerade(t *testing.T) {
	host := nft.NewFake(netip.MustParseAddr("192.0.2.2"))
	tx := nft.Diff(nft.Table{}, masquerade(clusters))
	if err := host.Apply(tx); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		reason, from, to string
		want             bool
	}{
		"World":     {"no host outside of the cluster has a route back to a Pod", "10.42.0.2:1000", "203.0.113.1:80", true},
		"Pod":       {"a Pod sees which Pod asks", "10.42.0.2:1000", "10.42.1.2:80", false},
		"Multicast": {"the answers go to a group", "10.42.0.2:1000", "224.0.0.251:5353", false},
		"Host":      {"what the host sends has its address", "192.0.2.2:1000", "203.0.113.1:80", false},
	} {
		got := host.Send(nft.Packet{
			In: Bridge, Out: "eth0", Source: netip.MustParseAddrPort(tc.from), Destination: netip.MustParseAddrPort(tc.to), Protocol: unix.IPPROTO_UDP,
		})
		if got.Verdict != nft.Accept || got.Masqueraded != tc.want {
			t.Errorf("%s: got %+v, want masqueraded %t: %s", name, got, tc.want, tc.reason)
		}
	}
}
