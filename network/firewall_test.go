package network

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"flyball.dev/nft"
)

func TestDrops(t *testing.T) {
	verdict := func(kind nft.Kind, to ...string) nft.Statement {
		return nft.Verdict{Kind: kind, Chain: strings.Join(to, "")}
	}
	type rule = []nft.Statement
	rules := func(all ...rule) []nft.Rule {
		var out []nft.Rule
		for _, statements := range all {
			out = append(out, nft.R(statements...))
		}
		return out
	}
	from := func(network string, then nft.Statement) rule {
		return rule{nft.SourceIn(p(network)), nft.Counter{}, then}
	}
	reject, yes, no := nft.Other{Name: "target REJECT"}, verdict(nft.Accept), verdict(nft.Drop)
	established := rule{nft.Match{Operand: nft.Of(nft.CTState), Value: nft.Number(nft.StateEstablished)}, yes}
	for name, tc := range map[string]struct {
		reason string
		drop   bool // by policy
		rules  []nft.Rule
		any    bool // packets that no rule has conditions for are dropped
		pods   bool // those of Pods are
	}{
		"empty":         {reason: "it is open"},
		"policy":        {reason: "Docker and ufw", drop: true, any: true, pods: true},
		"no policy":     {reason: "the kernel's default is to accept"},
		"nft reject":    {reason: "firewalld", rules: rules(established, rule{nft.Reject{}}), any: true, pods: true},
		"nft drop":      {reason: "as good as a policy", rules: rules(rule{nft.Counter{}, nft.Other{Name: "log"}, no}), any: true, pods: true},
		"xt reject":     {reason: "iptables-services of RHEL", rules: rules(established, rule{nft.Counter{}, reject}), any: true, pods: true},
		"xt comment":    {reason: "a comment is no condition", rules: rules(rule{nft.Other{Name: "match comment"}, nft.Counter{}, reject}), any: true, pods: true},
		"xt match":      {reason: "some packets are rejected", rules: rules(rule{nft.Other{Name: "match tcp"}, nft.Counter{}, reject})},
		"xt log":        {reason: "it writes and lets pass", rules: rules(rule{nft.Counter{}, nft.Other{Name: "target LOG"}})},
		"some":          {reason: "packets with another state pass", rules: rules(rule{established[0], no})},
		"behind reject": {reason: "a rule was appended where none is reached", rules: rules(rule{reject}, from("10.42.0.0/16", yes)), any: true, pods: true},
		"accepted":      {reason: "the remedy of hostcheck", drop: true, rules: rules(from("10.42.0.0/16", yes)), any: true},
		"wider":         {reason: "the Pods' range is part of it", drop: true, rules: rules(from("10.0.0.0/9", yes)), any: true},
		"narrower":      {reason: "other Pods are dropped", drop: true, rules: rules(from("10.42.0.0/24", yes)), any: true, pods: true},
		"other":         {reason: "no Pod is there", drop: true, rules: rules(from("192.0.2.0/24", yes)), any: true, pods: true},
		"destination":   {reason: "it is about packets to Pods", drop: true, rules: rules(rule{nft.DestinationIn(cluster), yes}), any: true, pods: true},
		"all but":       {reason: "Pods are what is left out", drop: true, rules: rules(rule{nft.Not(nft.SourceIn(cluster)), yes}), any: true, pods: true},
		"one port":      {reason: "the others are dropped", drop: true, rules: rules(append(rule{nft.Other{Name: "match tcp"}}, from("10.42.0.0/16", yes)...)), any: true, pods: true},
		"jump":          {reason: "ufw has its users' rules in a chain", drop: true, rules: rules(rule{verdict(nft.Jump, "not-local")}, rule{verdict(nft.Jump, "user")}), any: true},
		"goto":          {reason: "firewalld has zones", rules: rules(rule{verdict(nft.Jump, "zones")}, rule{nft.Reject{}}), any: true},
		"loop":          {reason: "it ends", drop: true, rules: rules(rule{verdict(nft.Jump, "loop")}), any: true, pods: true},
	} {
		t.Run(name, func(t *testing.T) {
			c := nft.FilterChain{
				DropByDefault: tc.drop, Rules: tc.rules,
				Jumps: map[string][]nft.Rule{
					"not-local": rules(established, rule{no}),
					"user":      rules(from("10.42.0.0/16", yes)),
					"zones":     rules(from("192.0.2.0/24", verdict(nft.Goto, "trusted")), from("10.42.0.0/16", verdict(nft.Goto, "trusted"))),
					"trusted":   rules(rule{verdict(nft.Jump, "empty")}, rule{yes}),
					"loop":      rules(rule{verdict(nft.Jump, "loop")}),
				},
			}
			got := []bool{drops(c, netip.Prefix{}), dropsAny(c, clusters)}
			if d := cmp.Diff([]bool{tc.any, tc.pods}, got); d != "" {
				t.Errorf("%s: packets, those of Pods are dropped (-want +got):\n%s", tc.reason, d)
			}
		})
	}
}

// TestReadFirewall reads what nft writes, which leaves out of a rule what it can.
func TestReadFirewall(t *testing.T) {
	const ufw = `table ip filter {
	chain ufw-not-local { fib daddr type local return; counter drop; }
	chain ufw-user-input { ALLOWED }
	chain ufw-before-input { iifname "lo" accept; ct state established accept; jump ufw-not-local; jump ufw-user-input; }
	chain INPUT { type filter hook input priority 0; policy drop; jump ufw-before-input; }
	chain FORWARD { type filter hook forward priority 0; policy drop; }
}`
	const firewalld = `table inet firewalld {
	chain filter_IN_trusted { accept; }
	chain filter_IN_public { tcp dport 22 accept; }
	chain filter_INPUT_ZONES { ALLOWED
		goto filter_IN_public; }
	chain filter_INPUT { type filter hook input priority 10; ct state established accept; jump filter_INPUT_ZONES; reject with icmpx admin-prohibited; }
}`
	ufwInput, ufwForward := nft.BaseChain{Table: nft.TableName{Family: nft.IPv4, Name: "filter"}, Name: "INPUT"}, nft.BaseChain{Table: nft.TableName{Family: nft.IPv4, Name: "filter"}, Name: "FORWARD"}
	for name, tc := range map[string]struct {
		reason, rules, allowed string
		want                   Firewall
	}{
		"ufw":               {reason: "ufw enable", rules: ufw, want: Firewall{Forward: []nft.BaseChain{ufwForward}, Input: []nft.BaseChain{ufwInput}}},
		"ufw, allowed":      {reason: "ufw allow from 10.42.0.0/16", rules: ufw, allowed: "ip saddr 10.42.0.0/16 counter accept;", want: Firewall{Forward: []nft.BaseChain{ufwForward}}},
		"ufw, bridge":       {reason: "ufw allow in on flyball0", rules: ufw, allowed: `iifname "flyball0" accept;`, want: Firewall{Forward: []nft.BaseChain{ufwForward}}},
		"firewalld":         {reason: "the zone public", rules: firewalld, want: Firewall{Input: []nft.BaseChain{{Table: nft.TableName{Family: nft.Inet, Name: "firewalld"}, Name: "filter_INPUT"}}}},
		"firewalld, source": {reason: "--zone=trusted --add-source", rules: firewalld, allowed: "ip saddr 10.42.0.0/16 goto filter_IN_trusted;"},
		"firewalld, masked": {reason: "a length that is not whole bytes is masked", rules: firewalld, allowed: "ip saddr 10.40.0.0/13 goto filter_IN_trusted;"},
	} {
		t.Run(name, func(t *testing.T) {
			newNamespace(t).do(func() {
				nft := exec.Command("nft", "-f", "-")
				nft.Stdin = strings.NewReader(strings.ReplaceAll(tc.rules, "ALLOWED", tc.allowed))
				if out, err := nft.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
				got, err := ReadFirewall(cluster)
				if err != nil {
					t.Fatal(err)
				}
				got.Legacy = false
				if d := cmp.Diff(tc.want, got); d != "" {
					t.Errorf("%s: -want +got:\n%s", tc.reason, d)
				}
			})
		})
	}
}

// TestOwnedFirewall: firewalld owns its table, and the node gets its network nevertheless.
func TestOwnedFirewall(t *testing.T) {
	node, cfg := newNamespace(t), testConfig(t)
	node.do(func() {
		addUplink(t)
		if err := Setup(cfg); err != nil {
			t.Fatal(err)
		}
		ownedFirewall(t)
		firewall(t, nft.Inet, true)
		done, err := (&controller{cfg: cfg, nodes: store(t, testNodes()...)}).sync(klog.Background())
		if !done || !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "NftablesTableOwner=no") {
			t.Errorf("syncing: %t, %v; want that it is done, and an error with the remedy", done, err)
		}
		if n := rulesOf(t, nft.Inet); n != 3 {
			t.Errorf("the other chain has %d rules, want its own and our two", n)
		}
		if _, ok := contents(t, cfg.CNIConfDir)[conflistName]; !ok {
			t.Error("there is no CNI configuration")
		}
		routed := false
		host, err := observe()
		for _, r := range host.Routes {
			routed = routed || r.To == testNodes()[1].PodCIDRs[0]
		}
		if err != nil || !routed {
			t.Errorf("there is no route to the Pods of the other node: %v, %v", host.Routes, err)
		}
		got, err := ReadFirewall(cluster)
		if err != nil {
			t.Fatal(err)
		}
		want := []nft.BaseChain{{Table: nft.TableName{Family: nft.IPv4, Name: "firewalld"}, Name: "filter_FORWARD", Owned: true}, {Table: nft.TableName{Family: nft.Inet, Name: "filter"}, Name: "FORWARD"}}
		if d := cmp.Diff(want, got.Forward); d != "" {
			t.Errorf("chains that drop: -want +got:\n%s", d)
		}
		if err := cleanup(cfg, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if n := rulesOf(t, nft.Inet); n != 1 {
			t.Errorf("%d rules are left in the other chain, want its own", n)
		}
	})
}

// TestGoneFirewall: what goes while a chain is changed is no error, and leaves nothing of ours
// behind.
func TestGoneFirewall(t *testing.T) {
	newNamespace(t).do(func() {
		firewall(t, nft.IPv4, true)
		if err := syncForward(klog.Background(), clusters); err != nil {
			t.Fatal(err)
		}
		chains, err := observeForward(clusters)
		if err != nil || len(chains) != 1 || len(chains[0].Ours) != 2 {
			t.Fatalf("observing: %+v, %v; want one chain with two rules of ours", chains, err)
		}
		first := chains[0]
		first.Ours = first.Ours[:1]
		for _, c := range []forwardChain{first, chains[0]} { // the second time a rule has gone
			if err := actForward(c, planForward(nil, c)); err != nil {
				t.Fatal(err)
			}
		}
		if n := rulesOf(t, nft.IPv4); n != 1 {
			t.Errorf("the chain has %d rules, want its own", n)
		}
		dropFirewall(t, nft.IPv4)
		if n := rulesOf(t, nft.IPv4); n != 0 {
			t.Errorf("a chain that has gone has %d rules", n)
		}
		c := forwardChain{BaseChain: first.BaseChain, Drops: true}
		if err := actForward(c, planForward(clusters, c)); err != nil {
			t.Errorf("changing a chain that has gone: %v", err)
		}
	})
}

// ownedFirewall makes a table of a socket that lives as long as the test, with a chain that drops
// what is forwarded. The library cannot make one.
func ownedFirewall(t *testing.T) {
	t.Helper()
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	be, text := binary.BigEndian, func(s string) []byte { return append([]byte(s), 0) }
	attributes := func(all ...mdnetlink.Attribute) []byte {
		data, err := mdnetlink.MarshalAttributes(all)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	message := func(kind, flags uint16, family, subsystem byte, data []byte) mdnetlink.Message {
		return mdnetlink.Message{
			Header: mdnetlink.Header{Type: mdnetlink.HeaderType(kind), Flags: mdnetlink.HeaderFlags(flags) | mdnetlink.Request},
			Data:   append([]byte{family, unix.NFNETLINK_V0, 0, subsystem}, data...),
		}
	}
	add := func(kind uint16, data []byte) mdnetlink.Message {
		return message(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_CREATE|unix.NLM_F_ACK, unix.NFPROTO_IPV4, 0, data)
	}
	if _, err := conn.SendMessages([]mdnetlink.Message{
		message(unix.NFNL_MSG_BATCH_BEGIN, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
		add(unix.NFT_MSG_NEWTABLE, attributes(
			mdnetlink.Attribute{Type: unix.NFTA_TABLE_NAME, Data: text("firewalld")},
			mdnetlink.Attribute{Type: unix.NFTA_TABLE_FLAGS, Data: be.AppendUint32(nil, 1<<1)})),
		add(unix.NFT_MSG_NEWCHAIN, attributes(
			mdnetlink.Attribute{Type: unix.NFTA_CHAIN_TABLE, Data: text("firewalld")},
			mdnetlink.Attribute{Type: unix.NFTA_CHAIN_NAME, Data: text("filter_FORWARD")},
			mdnetlink.Attribute{Type: unix.NFTA_CHAIN_TYPE, Data: text("filter")},
			mdnetlink.Attribute{Type: unix.NFTA_CHAIN_POLICY, Data: be.AppendUint32(nil, 0)},
			mdnetlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_CHAIN_HOOK, Data: attributes(
				mdnetlink.Attribute{Type: unix.NFTA_HOOK_HOOKNUM, Data: be.AppendUint32(nil, unix.NF_INET_FORWARD)},
				mdnetlink.Attribute{Type: unix.NFTA_HOOK_PRIORITY, Data: be.AppendUint32(nil, 10)})})),
		message(unix.NFNL_MSG_BATCH_END, 0, 0, unix.NFNL_SUBSYS_NFTABLES, nil),
	}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := conn.Receive(); errors.Is(err, unix.EOPNOTSUPP) {
			t.Skip("the kernel knows no owners of tables")
		} else if err != nil {
			t.Fatal(err)
		}
	}
}
