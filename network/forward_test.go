package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"flyball.dev/nft"
)

func TestPlanForward(t *testing.T) {
	chain := forwardChain{BaseChain: nft.BaseChain{Table: nft.TableName{Family: nft.IPv4, Name: "filter"}, Name: "FORWARD"}, Drops: true}
	wanted := forwardRules(chain.BaseChain, clusters)
	with := func(drops bool, rules ...nft.Rule) forwardChain {
		c := chain
		c.Drops, c.Ours = drops, rules
		return c
	}
	from, to := wanted[0], wanted[1]
	from.Handle, to.Handle = 7, 8
	old := nft.Rule{Comment: forwardMark + "from Pods in 10.99.0.0/16", Handle: 9}
	for name, tc := range map[string]struct {
		reason      string
		clusters    []netip.Prefix
		chain       forwardChain
		add, remove []string
	}{
		"dropping": {reason: "Docker has just come", clusters: clusters, chain: chain, add: []string{from.Comment, to.Comment}},
		"there":    {reason: "nothing is written twice", clusters: clusters, chain: with(true, from, to)},
		"half":     {reason: "an administrator removed one", clusters: clusters, chain: with(true, to), add: []string{from.Comment}},
		"twice":    {reason: "one is enough", clusters: clusters, chain: with(true, from, to, from), remove: []string{from.Comment}},
		"other":    {reason: "the cluster had another range", clusters: clusters, chain: with(true, old, from, to), remove: []string{old.Comment}},
		"harmless": {reason: "the firewall was opened", clusters: clusters, chain: with(false, from, to), remove: []string{from.Comment, to.Comment}},
		"down":     {reason: "what is ours goes, whatever it is", chain: with(true, from, to, old), remove: []string{from.Comment, to.Comment, old.Comment}},
	} {
		t.Run(name, func(t *testing.T) {
			var add, remove []string
			for _, a := range planForward(tc.clusters, tc.chain) {
				if a.Remove {
					remove = append(remove, a.Rule.Comment)
				} else {
					add = append(add, a.Rule.Comment)
				}
			}
			if d := cmp.Diff([][]string{tc.add, tc.remove}, [][]string{add, remove}); d != "" {
				t.Errorf("%s: added, removed (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

// firewall makes a chain that forwarded packets pass, with a rule of its own, as a firewall would.
func firewall(t *testing.T, family nft.Family, drop bool, last ...nft.Statement) {
	t.Helper()
	tx := nft.Transaction{Table: nft.TableName{Family: family, Name: "filter"}}
	tx.Create(nft.Table{Chains: []nft.Chain{{
		Name: "FORWARD", Base: nft.Base{Type: nft.Filter, Hook: nft.Forward, DropByDefault: drop},
		Rules: []nft.Rule{nft.R(append([]nft.Statement{nft.Counter{}}, last...)...)},
	}}})
	if err := (nft.Kernel{}).Apply(tx); err != nil {
		t.Fatal(err)
	}
}

// rulesOf counts the rules of the firewall's chain.
func rulesOf(t *testing.T, family nft.Family) int {
	t.Helper()
	rules, err := nft.Kernel{}.Rules(nft.TableName{Family: family, Name: "filter"}, "FORWARD")
	if err != nil {
		t.Fatal(err)
	}
	return len(rules)
}

func dropFirewall(t *testing.T, family nft.Family) {
	t.Helper()
	tx := nft.Transaction{Table: nft.TableName{Family: family, Name: "filter"}}
	tx.Remove()
	if err := (nft.Kernel{}).Apply(tx); err != nil {
		t.Fatal(err)
	}
}

// TestForward has a Pod ask the world through a firewall that drops.
func TestForward(t *testing.T) {
	for name, tc := range map[string]struct {
		family nft.Family
		drop   bool // by policy
		last   []nft.Statement
	}{
		"as Docker and ufw": {nft.IPv4, true, nil},
		"nftables":          {nft.Inet, true, nil},
		"as RHEL":           {nft.IPv4, false, []nft.Statement{nft.Other{Name: "target REJECT"}}},
		"as firewalld":      {nft.Inet, false, []nft.Statement{nft.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}}},
	} {
		t.Run(name, func(t *testing.T) {
			node, pod, world, cfg := newNamespace(t), newNamespace(t), newNamespace(t), testConfig(t)
			node.do(func() { connectPod(t, pod, world) })
			world.do(func() { serveSource(t, "192.0.2.1:8080") })
			passes := func(within time.Duration) bool {
				var err error
				pod.do(func() {
					var conn net.Conn
					if conn, err = net.DialTimeout("tcp", "192.0.2.1:8080", within); err == nil {
						err = conn.Close()
					}
				})
				return err == nil
			}
			if !passes(10 * time.Second) {
				t.Fatal("the Pod does not reach the world without a firewall")
			}
			events := make(chan struct{}, 1)
			node.do(func() {
				watch, err := nft.Kernel{}.Watch()
				if err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- watch.Run(ctx, events) }()
				t.Cleanup(func() {
					cancel()
					if err := <-ended; err != nil {
						t.Error(err)
					}
				})
			})
			for _, reason := range []string{"the firewall comes", "it makes its chain anew"} {
				node.do(func() { firewall(t, tc.family, tc.drop, tc.last...) })
				select {
				case <-events:
				case <-time.After(10 * time.Second):
					t.Fatalf("%s, and there is no event", reason)
				}
				if passes(300 * time.Millisecond) {
					t.Fatalf("%s, and drops nothing: this test is of no use", reason)
				}
				node.do(func() {
					for range 2 { // the second time changes nothing
						if err := syncForward(klog.Background(), cfg.ClusterCIDRs); err != nil {
							t.Fatal(err)
						}
					}
					if n := rulesOf(t, tc.family); n != 3 {
						t.Errorf("%s: its chain has %d rules, want its own and our two", reason, n)
					}
				})
				if !passes(10 * time.Second) {
					t.Errorf("%s, and the Pod does not reach the world", reason)
				}
				if reason != "the firewall comes" {
					continue
				}
				node.do(func() { dropFirewall(t, tc.family) })
				for len(events) > 0 {
					<-events
				}
			}
			node.do(func() {
				for range 2 {
					if err := cleanup(cfg, t.TempDir()); err != nil {
						t.Fatal(err)
					}
				}
				if n := rulesOf(t, tc.family); n != 1 {
					t.Errorf("%d rules are left in its chain, want its own", n)
				}
			})
			if passes(300 * time.Millisecond) {
				t.Error("packets pass after the node was taken down")
			}
		})
	}
}

// connectPod makes a router of this namespace, between a Pod and the world, which knows the way
// back.
func connectPod(t *testing.T, pod, world *namespace) {
	t.Helper()
	if err := configureKernel(); err != nil {
		t.Fatal(err)
	}
	for _, side := range []struct {
		ns          *namespace
		name        string
		here, there string
		gateway     net.IP
	}{
		{pod, "pod", "10.42.0.1/24", "10.42.0.2/24", net.IPv4(10, 42, 0, 1)},
		{world, "world", "192.0.2.2/24", "192.0.2.1/24", net.IPv4(192, 0, 2, 2)},
	} {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: side.name + "0"}, PeerName: side.name}); err != nil {
			t.Fatal(err)
		}
		give(t, side.name, side.ns)
		address(t, side.name+"0", side.here)
		side.ns.do(func() {
			address(t, side.name, side.there)
			if err := netlink.RouteAdd(&netlink.Route{Dst: ipNet(p("0.0.0.0/0")), Gw: side.gateway}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func address(t *testing.T, name, prefix string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = errors.Join(netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p(prefix))}), netlink.LinkSetUp(link))
	}
	if err != nil {
		t.Fatal(err)
	}
}
