package proxy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"flyball.dev/nft"
)

// sim is a node in memory with the proxy's table, which evaluates packets without a kernel. The
// kernel tests make the same connections for real.
type sim struct {
	t     *testing.T
	host  *nft.Fake
	table *table
	state *State
}

func newSim(t *testing.T, cfg Config) *sim {
	t.Helper()
	host := nft.NewFake(nodeIP, gatewayIP)
	s := &sim{t, host, newTable(cfg, host), NewState()}
	must(t, s.table.rebuild(s.state.All()))
	return s
}

// set writes a Service.
func (s *sim) set(svc Service) {
	s.t.Helper()
	s.state.Set(svc.Name, s.state.PlanService(svc, []netip.Addr{nodeIP}))
	must(s.t, s.table.apply(s.state.Take()))
}

// Where packets come from: outside, a Pod of this node, and the node itself.
const (
	outside = "192.0.2.2"
	aPod    = "10.42.0.13"
	theNode = "192.0.2.1"
)

func (s *sim) send(p Protocol, from, to string) nft.Outcome {
	in := map[string]string{theNode: "", "127.0.0.1": "", outside: "up0"}
	name, known := in[from]
	if !known {
		name = "br0"
	}
	return s.host.Send(nft.Packet{
		In: name, Out: "br0", Protocol: uint8(p),
		Source: netip.AddrPortFrom(netip.MustParseAddr(from), 40000), Destination: netip.MustParseAddrPort(to),
	})
}

// fate is an outcome in words: "refused", "dropped", or where the packet goes, all that occurred in
// a number of tries.
func fate(o nft.Outcome) string {
	switch {
	case o.Rejected:
		return "refused"
	case o.Verdict == nft.Drop:
		return "dropped"
	case o.Masqueraded:
		return o.Destination.String() + " masqueraded"
	}
	return o.Destination.String()
}

func (s *sim) fates(p Protocol, from, to string) string {
	seen := map[string]bool{}
	for range 40 {
		o := s.send(p, from, to)
		seen[fate(o)] = true
		if o.Mark != 0 {
			s.t.Errorf("the packet leaves with mark %#x", o.Mark)
		}
	}
	return strings.Join(slices.Sorted(keys(seen)), ", ")
}

func TestPackets(t *testing.T) {
	external, lb := addrs([]string{"198.51.100.7"}), addrs([]string{"198.51.100.8"})
	everywhere := func(p *ServicePort) { p.NodePort, p.ExternalIPs, p.LoadBalancerIPs = 30080, external, lb }
	localPolicy := func(p *ServicePort) {
		everywhere(p)
		p.InternalLocal, p.ExternalLocal = true, true
		if len(p.Endpoints) > 1 {
			remote(p.Endpoints[1:])
		}
	}
	noneHere := func(p *ServicePort) { localPolicy(p); remote(p.Endpoints) }
	restricted := func(p *ServicePort) { everywhere(p); p.SourceRanges = prefixes([]string{"203.0.113.0/24"}) }
	const first, second, third = "10.42.0.11:8080", "10.42.0.12:8080", "10.42.0.13:8080"
	for name, tc := range map[string]struct {
		reason   string
		service  Service
		from, to string
		want     string
	}{
		"ClusterIP":     {"a Pod keeps its address", web(nil, 0, 1), aPod, webIP, first + ", " + second},
		"OneEndpoint":   {"there is nothing to choose", web(nil, 1), aPod, webIP, second},
		"Hairpin":       {"a Pod that reaches itself would answer itself directly", web(nil, 2), aPod, webIP, third + " masqueraded"},
		"Outside":       {"who is not of the cluster is masqueraded", web(nil, 0), outside, webIP, first + " masqueraded"},
		"Node":          {"so is the node, whose address another node does not route back", web(nil, 0), theNode, webIP, first + " masqueraded"},
		"NoEndpoints":   {"the client learns at once that nothing answers", web(everywhere), aPod, webIP, "refused"},
		"NoEndpointsNP": {"at the NodePort as well", web(everywhere), outside, nodePort, "refused"},
		"NoSuchPort":    {"the address has no such port", web(nil, 0), aPod, "10.43.0.80:81", "refused"},
		"Unclaimed":     {"no Service has the address", web(nil, 0), theNode, "10.43.99.99:80", "refused"},
		"World":         {"other addresses are not the proxy's", web(nil, 0), aPod, "203.0.113.9:80", "203.0.113.9:80"},

		"NodePort":         {"another node may have the endpoint: the answer must come back here", web(everywhere, 0, 1), outside, nodePort, first + " masqueraded, " + second + " masqueraded"},
		"NodePortGateway":  {"a NodePort is on every address of the node", web(everywhere, 0), aPod, "10.42.0.1:30080", first + " masqueraded"},
		"NodePortLoopback": {"but for loopback", web(everywhere, 0), theNode, "127.0.0.1:30080", "127.0.0.1:30080"},
		"NodePortElse":     {"another host's port of that number is its own", web(everywhere, 0), aPod, "203.0.113.9:30080", "203.0.113.9:30080"},
		"ExternalIP":       {"an external IP is as a NodePort", web(everywhere, 0), outside, "198.51.100.7:80", first + " masqueraded"},

		"LocalInternal":  {"internalTrafficPolicy Local stays on the node", web(localPolicy, 0, 1), aPod, webIP, first},
		"LocalNodePort":  {"externalTrafficPolicy Local stays on the node and keeps the source", web(localPolicy, 0, 1), outside, nodePort, first},
		"LocalFromPod":   {"a Pod may use any endpoint, as behind a load balancer", web(localPolicy, 0, 1), aPod, nodePort, first + ", " + second},
		"LocalFromNode":  {"and so may the node", web(localPolicy, 0, 1), theNode, nodePort, first + " masqueraded, " + second + " masqueraded"},
		"LocalNone":      {"load balancers are expected to go elsewhere", web(noneHere, 0, 1), outside, nodePort, "dropped"},
		"LocalNoneIn":    {"no endpoint is on this node", web(noneHere, 0, 1), aPod, webIP, "dropped"},
		"LocalNonePod":   {"a Pod may use those of other nodes", web(noneHere, 0, 1), aPod, "198.51.100.7:80", first + ", " + second},
		"LocalNobody":    {"without any endpoint the policy does not matter", web(localPolicy), outside, nodePort, "refused"},
		"RangeForbidden": {"the load balancer's address is for others", web(restricted, 0), outside, "198.51.100.8:80", "dropped"},
		"RangeAllowed":   {"the client is in the range", web(restricted, 0), "203.0.113.5", "198.51.100.8:80", first + " masqueraded"},
		"RangeElsewhere": {"other addresses are not restricted", web(restricted, 0), outside, "198.51.100.7:80", first + " masqueraded"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSim(t, testConfig())
			s.set(tc.service)
			for _, p := range []Protocol{TCP, UDP} {
				if got := s.fates(p, tc.from, tc.to); got != tc.want {
					t.Errorf("%s from %s to %s: got %s, want %s: %s\n%s", p, tc.from, tc.to, got, tc.want, tc.reason,
						strings.Join(s.send(p, tc.from, tc.to).Trace, "\n"))
				}
			}
		})
	}
}

// TestPacketsWithoutRanges has a proxy that does not know the cluster's ranges.
func TestPacketsWithoutRanges(t *testing.T) {
	s := newSim(t, Config{NodeName: "node"})
	s.set(web(nil, 0))
	if got := s.fates(TCP, outside, webIP); got != "10.42.0.11:8080" {
		t.Errorf("a client that may be a Pod: got %s", got)
	}
	if got := s.fates(TCP, aPod, "10.43.99.99:80"); got != "10.43.99.99:80" {
		t.Errorf("an address that may be a host's: got %s", got)
	}
}

// TestPacketsWithTwoRanges has Pods in two ranges: those of either are inside.
func TestPacketsWithTwoRanges(t *testing.T) {
	cfg := testConfig()
	cfg.ClusterCIDRs = append(cfg.ClusterCIDRs, netip.MustParsePrefix("10.44.0.0/16"))
	s := newSim(t, cfg)
	s.set(web(nil, 0))
	for from, want := range map[string]string{aPod: "10.42.0.11:8080", "10.44.0.9": "10.42.0.11:8080", outside: "10.42.0.11:8080 masqueraded"} {
		if got := s.fates(TCP, from, webIP); got != want {
			t.Errorf("from %s: got %s, want %s", from, got, want)
		}
	}
}

// TestPacketsWithAffinity follows clients to their endpoints.
func TestPacketsWithAffinity(t *testing.T) {
	sticky := func(pods ...int) Service {
		return web(func(p *ServicePort) { p.Affinity, p.NodePort = 60, 30080 }, pods...)
	}
	for _, to := range []string{webIP, nodePort} {
		s := newSim(t, testConfig())
		s.set(sticky(0, 1, 2))
		bound := s.send(TCP, outside, to).Destination
		stays := func(when string) {
			t.Helper()
			if got := s.fates(TCP, outside, to); got != bound.String()+" masqueraded" {
				t.Errorf("%s, %s: the client went to %s, and was at %s", to, when, got, bound)
			}
		}
		stays("at once")
		s.host.Advance(50 * time.Second)
		stays("before the timeout")
		s.host.Advance(50 * time.Second)
		stays("each connection begins the timeout anew")
		must(t, s.table.rebuild(s.state.All()))
		stays("after a restart")
		var others []int
		for i := range 3 {
			if podIP(i) != bound.Addr() {
				others = append(others, i)
			}
		}
		s.set(sticky(others...))
		gone := bound
		if bound = s.send(TCP, outside, to).Destination; bound == gone {
			t.Errorf("%s: the client is bound to an endpoint that is gone", to)
		}
		s.set(sticky(0, 1, 2))
		stays("after the first endpoint is ready again")

		met := map[netip.AddrPort]bool{}
		for range 30 {
			s.host.Advance(61 * time.Second)
			met[s.send(TCP, outside, to).Destination] = true
		}
		if len(met) != 3 {
			t.Errorf("%s: after the timeout a client is as good as unknown, and went to %v only", to, met)
		}
	}
}

// TestPacketsToHostPorts follows packets to the host port of a Pod.
func TestPacketsToHostPorts(t *testing.T) {
	s := newSim(t, testConfig())
	for i, hostIP := range []netip.Addr{netip.IPv4Unspecified(), gatewayIP} {
		pod := HostPortPod{Addr: podIP(i), Ports: []HostPortMapping{{hostIP, TCP, 9090, 8080}}}
		s.state.Set("pod/"+pod.Addr.String(), PlanPod(pod))
	}
	must(t, s.table.apply(s.state.Take()))
	for name, tc := range map[string]struct{ reason, from, to, want string }{
		"Any":      {"it is on every address of the host", outside, "192.0.2.1:9090", "10.42.0.11:8080"},
		"Address":  {"the Pod that names the address has it", aPod, "10.42.0.1:9090", "10.42.0.12:8080"},
		"Hairpin":  {"the Pod reaches itself", "10.42.0.11", "192.0.2.1:9090", "10.42.0.11:8080 masqueraded"},
		"Loopback": {"the Pod cannot answer 127.0.0.1", "127.0.0.1", "127.0.0.1:9090", "10.42.0.11:8080 masqueraded"},
		"Guard":    {"a Pod must not reach the host's loopback", aPod, "127.0.0.1:7777", "dropped"},
	} {
		if got := s.fates(TCP, tc.from, tc.to); got != tc.want {
			t.Errorf("%s: from %s to %s: got %s, want %s: %s", name, tc.from, tc.to, got, tc.want, tc.reason)
		}
	}
}
