package nft

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// policies is how network policies could look: a verdict map from a Pod's address to the chain of
// the policies that select it, a set of the peers that it allows, and both families in one table.
func policies() Table {
	pod4, pod6 := netip.MustParseAddr("10.42.0.11"), netip.MustParseAddr("fd00:42::11")
	established := R(HasBits(CTState, StateEstablished|StateRelated), Verdict{Kind: Accept})
	return Table{
		TableName: TableName{Inet, "policies"},
		Sets: []Set{
			{Name: "pods4", Key: Types{TypeIPv4}, Value: Types{TypeVerdict}},
			{Name: "pods6", Key: Types{TypeIPv6}, Value: Types{TypeVerdict}},
			{Name: "web-peers4", Key: Types{TypeIPv4, TypeProtocol, TypePort}, Interval: true},
		},
		Chains: []Chain{
			{Name: "forward", Base: Base{Type: Filter, Hook: Forward, Priority: PriorityFilter}, Rules: []Rule{
				established,
				R(OfFamily(IPv4), Dispatch{Key: Key{Of(IPDaddr)}, Map: "pods4"}),
				R(OfFamily(IPv6), Dispatch{Key: Key{Of(IP6Daddr)}, Map: "pods6"}),
			}},
			{Name: "web", Rules: []Rule{
				R(OfFamily(IPv4), In{Key: Key{Of(IPSaddr), Of(L4Proto), Of(Dport)}, Set: "web-peers4"}, Verdict{Kind: Accept}),
				R(Verdict{Kind: Drop}),
			}},
		},
		Elements: map[string][]Element{
			"pods4":      {{Key: Data(AppendAddr(nil, pod4)), Verdict: Verdict{Jump, "web"}}},
			"pods6":      {{Key: Data(AppendAddr(nil, pod6)), Verdict: Verdict{Jump, "web"}}},
			"web-peers4": {peers("10.42.7.0/24", 80, 90)},
		},
	}
}

func peers(cidr string, from, to uint16) Element {
	first, last := Range(netip.MustParsePrefix(cidr))
	return Element{
		Key: Data(AppendPort(AppendProtocol([]byte(first), 6), from)),
		End: Data(AppendPort(AppendProtocol([]byte(last), 6), to)),
	}
}

func TestPolicies(t *testing.T) {
	host := NewFake()
	if err := host.Apply(Diff(Table{}, policies())); err != nil {
		t.Fatal(err)
	}
	send := func(from, to string, state uint32) Kind {
		return host.Send(Packet{
			In: "eth0", Out: "bridge", Protocol: 6, State: state,
			Source: netip.MustParseAddrPort(from), Destination: netip.MustParseAddrPort(to),
		}).Verdict
	}
	for name, tc := range map[string]struct {
		reason, from, to string
		state            uint32
		want             Kind
	}{
		"Peer":        {"its address and port are allowed", "10.42.7.9:1", "10.42.0.11:85", StateNew, Accept},
		"Port":        {"its port is not", "10.42.7.9:1", "10.42.0.11:91", StateNew, Drop},
		"Stranger":    {"its address is not", "10.42.8.9:1", "10.42.0.11:85", StateNew, Drop},
		"Established": {"the connection was allowed when it began", "10.42.8.9:1", "10.42.0.11:85", StateEstablished, Accept},
		"NotSelected": {"no policy selects the Pod", "10.42.8.9:1", "10.42.0.12:85", StateNew, Accept},
		"IPv6":        {"no peer is of the other family", "[fd00:42::9]:1", "[fd00:42::11]:85", StateNew, Drop},
	} {
		if got := send(tc.from, tc.to, tc.state); got != tc.want {
			t.Errorf("%s: got %s, want %s: %s", name, Verdict{Kind: got}, Verdict{Kind: tc.want}, tc.reason)
		}
	}
	changed := policies()
	changed.Elements["web-peers4"] = []Element{peers("10.42.8.0/24", 80, 90)}
	tx := Diff(policies(), changed)
	if err := host.Apply(tx); err != nil || len(tx.Operations) != 2 {
		t.Fatalf("changing the peers: %v\n%s", err, &tx)
	}
	if send("10.42.7.9:1", "10.42.0.11:85", StateNew) != Drop || send("10.42.8.9:1", "10.42.0.11:85", StateNew) != Accept {
		t.Error("the peers are still the old ones")
	}
}

// TestPath has a packet pass the hooks of several tables.
func TestPath(t *testing.T) {
	chain := func(name string, base Base, rules ...Rule) Table {
		return Table{TableName: TableName{IPv4, name}, Chains: []Chain{{Name: name, Base: base, Rules: rules}}}
	}
	to := netip.MustParseAddrPort("10.42.0.11:8080")
	accept := R(Verdict{Kind: Accept})
	dnat := chain("dnat", Base{NAT, Prerouting, PriorityDstNAT, false}, R(ToPort(80), DNAT{To: to}))
	for name, tc := range map[string]struct {
		reason string
		tables []Table
		packet Packet
		want   Outcome
	}{
		"Nothing": {reason: "no rule decides", want: Outcome{Verdict: Accept}},
		"Translated": {
			reason: "a packet goes on to its new destination", tables: []Table{dnat, chain("guard", Base{Filter, Input, 0, true})},
			want: Outcome{Verdict: Accept, Destination: to},
		},
		"Established": {
			reason: "NAT chains see the first packet of a connection", tables: []Table{dnat, chain("guard", Base{Filter, Input, 0, true})},
			packet: Packet{State: StateEstablished}, want: Outcome{Verdict: Drop},
		},
		"TranslatedOnce": {
			reason: "the first chain that translates is the last one",
			tables: []Table{dnat, chain("later", Base{NAT, Prerouting, 0, false}, R(DNAT{To: netip.MustParseAddrPort("10.42.0.12:1")}))},
			want:   Outcome{Verdict: Accept, Destination: to},
		},
		"AcceptIsLocal": {
			reason: "a packet has to pass all base chains",
			tables: []Table{chain("a", Base{Filter, Prerouting, 0, false}, accept), chain("b", Base{Filter, Prerouting, 1, true})},
			want:   Outcome{Verdict: Drop},
		},
		"Priority": {
			reason: "the mark is set before it is matched",
			tables: []Table{
				chain("a", Base{Filter, Prerouting, 1, false}, R(HasBits(Mark, 1), Verdict{Kind: Drop})),
				chain("b", Base{Filter, Prerouting, 0, false}, R(SetMark{And: ^uint32(1), Xor: 1})),
			},
			want: Outcome{Verdict: Drop, Mark: 1},
		},
		"Return": {
			reason: "a return ends the chain, and its policy decides",
			tables: []Table{chain("a", Base{Filter, Prerouting, 0, true}, R(Verdict{Kind: Return}), accept)},
			want:   Outcome{Verdict: Drop},
		},
		"Reject": {
			reason: "the sender has an answer",
			tables: []Table{chain("a", Base{Filter, Input, 0, false}, R(RejectWithReset()))},
			want:   Outcome{Verdict: Drop, Rejected: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			host := NewFake(netip.MustParseAddr("192.0.2.1"))
			for _, table := range tc.tables {
				if err := host.Apply(Diff(Table{}, table)); err != nil {
					t.Fatal(err)
				}
			}
			p := tc.packet
			p.In, p.Protocol = "eth0", 6
			p.Source, p.Destination = netip.MustParseAddrPort("192.0.2.2:1000"), netip.MustParseAddrPort("192.0.2.1:80")
			if !tc.want.Destination.IsValid() {
				tc.want.Destination = p.Destination
			}
			if diff := cmp.Diff(tc.want, host.Send(p), cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.IgnoreFields(Outcome{}, "Trace")); diff != "" {
				t.Errorf("%s: -want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
