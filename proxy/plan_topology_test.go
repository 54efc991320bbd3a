package proxy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func addrPorts(list ...string) []netip.AddrPort {
	var out []netip.AddrPort
	for _, s := range list {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestChoose(t *testing.T) {
	at := func(s string, local, ready, serving, terminating bool) Endpoint {
		return Endpoint{Addr: netip.MustParseAddrPort(s), Local: local, Ready: ready, Serving: serving, Terminating: terminating}
	}
	ready := func(s string, node, zone Hint) Endpoint {
		return Endpoint{Addr: netip.MustParseAddrPort(s), Ready: true, Serving: true, Hints: [2]Hint{node, zone}}
	}
	cases := map[string]struct {
		reason    string
		endpoints []Endpoint
		want      choice
	}{
		"None": {
			reason: "A Service without endpoints has nothing to choose from.",
		},
		"Ready": {
			reason: "Ready endpoints are chosen, sorted, and those that are not are left out.",
			endpoints: []Endpoint{
				at("10.0.0.2:1", true, true, true, false),
				at("10.0.0.1:1", false, true, true, false),
				at("10.0.0.3:1", true, false, false, false),
			},
			want: choice{addrPorts("10.0.0.1:1", "10.0.0.2:1"), addrPorts("10.0.0.2:1"), true},
		},
		"FallBackToServing": {
			reason: "If nothing is ready, what still serves while it terminates is used.",
			endpoints: []Endpoint{
				at("10.0.0.1:1", true, false, true, true),
				at("10.0.0.2:1", true, false, false, true),
				at("10.0.0.3:1", true, false, true, false),
			},
			want: choice{addrPorts("10.0.0.1:1"), addrPorts("10.0.0.1:1"), true},
		},
		"FallBackIndependently": {
			reason: "This node's last endpoint may drain while others are ready.",
			endpoints: []Endpoint{
				at("10.0.0.1:1", true, false, true, true),
				at("10.0.0.2:1", false, true, true, false),
			},
			want: choice{addrPorts("10.0.0.2:1"), addrPorts("10.0.0.1:1"), true},
		},
		"Twice": {
			reason: "An address that two slices name counts once.",
			endpoints: []Endpoint{
				at("10.0.0.1:1", false, true, true, false),
				at("10.0.0.1:1", false, true, true, false),
			},
			want: choice{addrPorts("10.0.0.1:1"), nil, true},
		},
		"Zone": {
			reason:    "Where every endpoint has a zone, those for this node's zone are chosen.",
			endpoints: []Endpoint{ready("10.0.0.1:1", NoHint, ForOthers), ready("10.0.0.2:1", NoHint, ForUs), ready("10.0.0.3:1", NoHint, ForUs)},
			want:      choice{addrPorts("10.0.0.2:1", "10.0.0.3:1"), nil, true},
		},
		"Node": {
			reason:    "Where every endpoint has a node, those for this node come before those for its zone.",
			endpoints: []Endpoint{ready("10.0.0.1:1", ForOthers, ForUs), ready("10.0.0.2:1", ForUs, ForUs)},
			want:      choice{addrPorts("10.0.0.2:1"), nil, true},
		},
		"NoEndpointForTheNode": {
			reason:    "Without an endpoint for this node its zone counts.",
			endpoints: []Endpoint{ready("10.0.0.1:1", ForOthers, ForOthers), ready("10.0.0.2:1", ForOthers, ForUs)},
			want:      choice{addrPorts("10.0.0.2:1"), nil, true},
		},
		"NoEndpointForTheZone": {
			reason:    "Without an endpoint for this zone all are used.",
			endpoints: []Endpoint{ready("10.0.0.1:1", NoHint, ForOthers), ready("10.0.0.2:1", NoHint, ForOthers)},
			want:      choice{addrPorts("10.0.0.1:1", "10.0.0.2:1"), nil, true},
		},
		"OneWithoutHint": {
			reason:    "A ready endpoint without a hint may have to serve everybody, so hints do not count.",
			endpoints: []Endpoint{ready("10.0.0.1:1", ForUs, NoHint), ready("10.0.0.2:1", NoHint, ForUs)},
			want:      choice{addrPorts("10.0.0.1:1", "10.0.0.2:1"), nil, true},
		},
		"HintsOfReadyOnesOnly": {
			reason: "An endpoint that is not ready is not chosen for its hint, nor are hints void for its lack of one.",
			endpoints: []Endpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.1:1"), Hints: [2]Hint{ForUs, NoHint}},
				ready("10.0.0.2:1", ForOthers, ForUs), ready("10.0.0.3:1", ForOthers, ForOthers),
			},
			want: choice{addrPorts("10.0.0.2:1"), nil, true},
		},
		"HintsWithoutReadyOnes": {
			reason: "What serves while it terminates is used whomever it was meant for.",
			endpoints: []Endpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.1:1"), Serving: true, Terminating: true, Hints: [2]Hint{ForOthers, ForOthers}},
				{Addr: netip.MustParseAddrPort("10.0.0.2:1"), Serving: true, Terminating: true, Hints: [2]Hint{ForUs, ForUs}},
			},
			want: choice{addrPorts("10.0.0.1:1", "10.0.0.2:1"), nil, true},
		},
		"PolicyLocalWithHints": {
			reason: "Hints do not concern traffic policy Local.",
			endpoints: []Endpoint{
				{Addr: netip.MustParseAddrPort("10.0.0.1:1"), Local: true, Ready: true, Hints: [2]Hint{NoHint, ForOthers}},
				ready("10.0.0.2:1", NoHint, ForUs),
			},
			want: choice{addrPorts("10.0.0.2:1"), addrPorts("10.0.0.1:1"), true},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			got := choose(tc.endpoints)
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(slices.Equal[[]netip.AddrPort])); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
		})
	}
}
