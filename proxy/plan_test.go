package proxy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"flyball.dev/nft"
)

// text is what a change does, line by line.
func (s *State) text(c Change) []string {
	names := map[uint32]string{}
	for class, n := range s.classes {
		names[n] = class.chain()
	}
	var lines []string
	for _, m := range c.Classes {
		lines = append(lines, "class "+m.Class.chain())
	}
	line := func(verb string, e Element) {
		lines = append(lines, fmt.Sprintf("%s %s { %s }", verb, e.Map, e.text(func(n uint32) string { return names[n] })))
	}
	for _, e := range c.Delete {
		line("delete", e)
	}
	for _, e := range c.Add {
		line("add", e)
	}
	for _, e := range c.Unbind {
		line("unbind clients of", e)
	}
	for _, f := range c.Stale {
		lines = append(lines, fmt.Sprintf("conntrack %s:%d keep %v", f.Addr, f.Port, f.Endpoints))
	}
	return lines
}

func TestPlan(t *testing.T) {
	tcp := func(change func(*ServicePort), pods ...int) Service {
		svc := web(change, pods...)
		svc.Ports = svc.Ports[:1]
		return svc
	}
	udp := func(change func(*ServicePort), pods ...int) Service {
		svc := web(change, pods...)
		svc.Ports = svc.Ports[1:]
		return svc
	}
	far := func(p *ServicePort) { remote(p.Endpoints) }
	sticky := func(p *ServicePort) { far(p); p.Affinity = 60 }
	cases := map[string]struct {
		reason string
		before []Service
		after  []Service
		want   []string
	}{
		"New": {
			reason: "A new Service brings its frontend, its endpoints, and hairpins for the local ones.",
			after:  []Service{tcp(nil, 0, 1)},
			want: []string{
				"class address-cluster-2-outside",
				"add frontends { 10.43.0.80 . tcp . 80 : address-cluster-2-outside }",
				"add endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
				"add endpoints { 10.43.0.80 . tcp . 80 . 1 : 10.42.0.12 . 8080 }",
				"add hairpin { 10.42.0.11 . 10.42.0.11 }",
				"add hairpin { 10.42.0.12 . 10.42.0.12 }",
			},
		},
		"Unchanged": {
			reason: "What stands there already is not written again.",
			before: []Service{tcp(nil, 0, 1)},
			after:  []Service{tcp(nil, 1, 0)},
		},
		"Replace": {
			reason: "An endpoint that takes another's place is one element; the class stays.",
			before: []Service{tcp(far, 0, 1)},
			after:  []Service{tcp(far, 0, 2)},
			want: []string{
				"delete endpoints { 10.43.0.80 . tcp . 80 . 1 : 10.42.0.12 . 8080 }",
				"add endpoints { 10.43.0.80 . tcp . 80 . 1 : 10.42.0.13 . 8080 }",
			},
		},
		"LastEndpoint": {
			reason: "Without endpoints, connections are refused.",
			before: []Service{tcp(far, 0)},
			after:  []Service{tcp(far)},
			want: []string{
				"class refuse",
				"delete frontends { 10.43.0.80 . tcp . 80 : address-cluster-1-outside }",
				"delete endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
				"add frontends { 10.43.0.80 . tcp . 80 : refuse }",
			},
		},
		"Delete": {
			reason: "A Service that is gone leaves nothing.",
			before: []Service{tcp(nil, 0)},
			after:  []Service{{Name: "default/web"}},
			want: []string{
				"delete frontends { 10.43.0.80 . tcp . 80 : address-cluster-1-outside }",
				"delete endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
				"delete hairpin { 10.42.0.11 . 10.42.0.11 }",
			},
		},
		"SharedHairpin": {
			reason: "What another Service wants as well stays.",
			before: []Service{tcp(nil, 0), {Name: "default/twin", Ports: []ServicePort{{
				ClusterIP: netip.MustParseAddr("10.43.0.81"), Protocol: TCP, Port: 80, Endpoints: endpoints(0),
			}}}},
			after: []Service{{Name: "default/web"}},
			want: []string{
				"delete frontends { 10.43.0.80 . tcp . 80 : address-cluster-1-outside }",
				"delete endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
			},
		},
		"StickyEndpointGone": {
			reason: "Clients forget an endpoint that goes, in the change that takes it away; one that moves in the list keeps its own.",
			before: []Service{tcp(sticky, 0, 1)},
			after:  []Service{tcp(sticky, 1)},
			want: []string{
				"class address-cluster-1-outside-sticky-60-a1daaeae0b3a658f",
				"delete frontends { 10.43.0.80 . tcp . 80 : address-cluster-2-outside-sticky-60-a750a2de146de480 }",
				"delete endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
				"delete endpoints { 10.43.0.80 . tcp . 80 . 1 : 10.42.0.12 . 8080 }",
				"add frontends { 10.43.0.80 . tcp . 80 : address-cluster-1-outside-sticky-60-a1daaeae0b3a658f }",
				"add endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.12 . 8080 }",
				"unbind clients of endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
			},
		},
		"NoLongerSticky": {
			reason: "Without session affinity there is nothing to remember.",
			before: []Service{tcp(sticky, 0)},
			after:  []Service{tcp(far, 0)},
			want: []string{
				"class address-cluster-1-outside",
				"delete frontends { 10.43.0.80 . tcp . 80 : address-cluster-1-outside-sticky-60-f0b76d4670b9dc20 }",
				"delete endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
				"add frontends { 10.43.0.80 . tcp . 80 : address-cluster-1-outside }",
				"add endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
				"unbind clients of endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
			},
		},
		"UDPEndpointGone": {
			reason: "UDP clients of an endpoint that is gone must be sent elsewhere.",
			before: []Service{udp(far, 0, 1)},
			after:  []Service{udp(far, 1)},
			want: []string{
				"class address-cluster-1-outside",
				"delete frontends { 10.43.0.80 . udp . 80 : address-cluster-2-outside }",
				"delete endpoints { 10.43.0.80 . udp . 80 . 0 : 10.42.0.11 . 8080 }",
				"delete endpoints { 10.43.0.80 . udp . 80 . 1 : 10.42.0.12 . 8080 }",
				"add frontends { 10.43.0.80 . udp . 80 : address-cluster-1-outside }",
				"add endpoints { 10.43.0.80 . udp . 80 . 0 : 10.42.0.12 . 8080 }",
				"conntrack 10.43.0.80:80 keep [10.42.0.12:8080]",
			},
		},
		"UDPEndpointMore": {
			reason: "One endpoint more makes no conntrack entry stale.",
			before: []Service{udp(far, 0)},
			after:  []Service{udp(far, 0, 1)},
			want: []string{
				"class address-cluster-2-outside",
				"delete frontends { 10.43.0.80 . udp . 80 : address-cluster-1-outside }",
				"add frontends { 10.43.0.80 . udp . 80 : address-cluster-2-outside }",
				"add endpoints { 10.43.0.80 . udp . 80 . 1 : 10.42.0.12 . 8080 }",
			},
		},
		"Contested": {
			reason: "Of two Services that want one address, the first by name has it.",
			before: []Service{tcp(far, 0)},
			after: []Service{{Name: "default/alpha", Ports: []ServicePort{{
				ClusterIP: netip.MustParseAddr("10.43.0.80"), Protocol: TCP, Port: 80, Endpoints: remote(endpoints(2)),
			}}}},
			want: []string{
				"delete endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.11 . 8080 }",
				"add endpoints { 10.43.0.80 . tcp . 80 . 0 : 10.42.0.13 . 8080 }",
			},
		},
		"ThereAndBack": {
			reason: "Changes that undo each other before they are written cost nothing.",
			before: []Service{tcp(nil, 0)},
			after:  []Service{tcp(nil), tcp(nil, 0, 1), tcp(nil, 0)},
			want:   []string{"class refuse", "class address-cluster-2-outside"},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := NewState()
			for _, svc := range tc.before {
				s.Set(svc.Name, s.PlanService(svc, nil))
			}
			s.Take()
			for _, svc := range tc.after {
				s.Set(svc.Name, s.PlanService(svc, nil))
			}
			if diff := cmp.Diff(tc.want, s.text(s.Take())); diff != "" {
				t.Errorf("%s\n-want +got:\n%s", tc.reason, diff)
			}
			if again := s.Take(); !again.Empty() {
				t.Errorf("there is still something to do: %v", s.text(again))
			}
		})
	}
}

// TestFailed checks that UDP clients of a Service that is gone are not forgotten when the change
// that contained its end could not be written.
func TestFailed(t *testing.T) {
	s := NewState()
	svc := web(nil, 0)
	s.Set(svc.Name, s.PlanService(svc, nil))
	s.Take()
	s.Set(svc.Name, Desired{})
	want := []Flow{{Addr: toIP(svc.Ports[1].ClusterIP), Port: 80}}
	c := s.Take()
	for try := range 3 {
		if diff := cmp.Diff(want, c.Stale, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("try %d: -want +got:\n%s", try, diff)
		}
		s.Failed(c)
		c = s.All()
	}
	if c = s.All(); len(c.Stale) > 0 {
		t.Errorf("it was written, and yet: %v", c.Stale)
	}
}

func TestStaleFlows(t *testing.T) {
	current := newUDPEndpoints([]Flow{
		{toIP(netip.MustParseAddr("10.43.0.80")), 53, addrPorts("10.42.0.11:5353")},
		{Port: 30053, Endpoints: addrPorts("10.42.0.11:5353")},
		{Port: 30054},
	})
	for name, tc := range map[string]struct {
		reason   string
		protocol uint8
		to, from string
		want     bool
	}{
		"Right":          {"it leads to an endpoint", unix.IPPROTO_UDP, "10.43.0.80:53", "10.42.0.11:5353", false},
		"Gone":           {"its endpoint is gone", unix.IPPROTO_UDP, "10.43.0.80:53", "10.42.0.12:5353", true},
		"NotTranslated":  {"there were no endpoints when it began", unix.IPPROTO_UDP, "10.43.0.80:53", "10.43.0.80:53", true},
		"TCP":            {"TCP ends by itself", unix.IPPROTO_TCP, "10.43.0.80:53", "10.42.0.12:5353", false},
		"AnotherPort":    {"no frontend that changed has it", unix.IPPROTO_UDP, "10.43.0.80:54", "10.42.0.12:5353", false},
		"NodePort":       {"the NodePort's endpoint is gone", unix.IPPROTO_UDP, "192.0.2.1:30053", "10.42.0.12:5353", true},
		"NotOurNodePort": {"it goes to another host's port of that number", unix.IPPROTO_UDP, "203.0.113.1:30053", "203.0.113.1:30053", false},
		"NodePortGone":   {"the Service that had the NodePort is gone", unix.IPPROTO_UDP, "192.0.2.1:30054", "10.42.0.12:5353", true},
		"Process":        {"a process of this host has the port", unix.IPPROTO_UDP, "192.0.2.1:30054", "192.0.2.1:30054", false},
	} {
		to, from := netip.MustParseAddrPort(tc.to), netip.MustParseAddrPort(tc.from)
		connection := nft.Connection{Protocol: tc.protocol, Destination: to, Server: from, Local: to.Addr() == nodeIP}
		if got := current.stale(connection); got != tc.want {
			t.Errorf("%s: got %v, want %v, because %s", name, got, tc.want, tc.reason)
		}
	}
}

func drawService(t *rapid.T) Service {
	svc := Service{Name: "default/" + rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name")}
	for range rapid.IntRange(0, 2).Draw(t, "ports") {
		p := ServicePort{
			// So few that Services contest each other's addresses.
			ClusterIP:     netip.AddrFrom4([4]byte{10, 43, 0, byte(rapid.IntRange(1, 3).Draw(t, "ip"))}),
			Protocol:      rapid.SampledFrom([]Protocol{TCP, UDP}).Draw(t, "protocol"),
			Port:          uint16(rapid.IntRange(80, 81).Draw(t, "port")),
			NodePort:      rapid.SampledFrom([]uint16{0, 30080}).Draw(t, "nodePort"),
			InternalLocal: rapid.Bool().Draw(t, "internal"),
			ExternalLocal: rapid.Bool().Draw(t, "external"),
			Affinity:      rapid.SampledFrom([]uint32{0, 10}).Draw(t, "affinity"),
		}
		if rapid.Bool().Draw(t, "lb") {
			p.LoadBalancerIPs = []netip.Addr{netip.AddrFrom4([4]byte{198, 51, 100, 1})}
		}
		for i := range 4 {
			if !rapid.Bool().Draw(t, "endpoint") {
				continue
			}
			p.Endpoints = append(p.Endpoints, Endpoint{
				Addr:  netip.AddrPortFrom(podIP(i), 8080),
				Local: rapid.Bool().Draw(t, "local"), Ready: rapid.Bool().Draw(t, "ready"),
				Serving: rapid.Bool().Draw(t, "serving"), Terminating: rapid.Bool().Draw(t, "terminating"),
				Hints: [2]Hint{Hint(rapid.IntRange(0, 2).Draw(t, "node")), Hint(rapid.IntRange(0, 2).Draw(t, "zone"))},
			})
		}
		taken := slices.ContainsFunc(svc.Ports, func(q ServicePort) bool { return p.Protocol == q.Protocol })
		if !taken { // a Service has each port once; the API server sees to that
			svc.Ports = append(svc.Ports, p)
		}
	}
	return svc
}

// TestIncremental checks that a table which followed any sequence of changes, in batches of any
// size, is the one that is built from the outcome alone. The fake refuses what the kernel would: a
// change that deletes what is not there, adds what is, or leads to a chain that is missing.
func TestIncremental(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, host := NewState(), nft.NewFake()
		table := newTable(testConfig(), host)
		do := func(write func(Change) error, c Change) {
			if err := write(c); err != nil {
				t.Fatal(err)
			}
		}
		do(table.rebuild, s.All())
		last := map[string]Service{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			svc := drawService(t)
			last[svc.Name] = svc
			s.Set(svc.Name, s.PlanService(svc, nil))
			switch rapid.IntRange(0, 9).Draw(t, "then") {
			case 0, 1, 2:
				continue // coalesced with the next
			case 3:
				do(table.rebuild, s.All())
			default:
				do(table.apply, s.Take())
			}
		}
		do(table.apply, s.Take())

		fresh, other := NewState(), nft.NewFake()
		for _, name := range slices.Sorted(keys(last)) {
			fresh.Set(name, fresh.PlanService(last[name], nil))
		}
		do(newTable(testConfig(), other).rebuild, fresh.All())
		if diff := cmp.Diff(lines(other), lines(host)); diff != "" {
			t.Fatalf("-built from scratch +incrementally:\n%s", diff)
		}
	})
}

// lines are the elements of the table, sorted, and the rules of the chains that they lead to. A
// class that no element uses may keep its chain.
func lines(host *nft.Fake) []string {
	table, _ := host.Read(ipv4().table())
	chains := map[string]bool{}
	var out []string
	for _, s := range table.Sets {
		for _, e := range table.Elements[s.Name] {
			out = append(out, s.Name+" "+s.Text(e))
			chains[e.Verdict.Chain] = true
		}
	}
	for _, c := range table.Chains {
		if chains[c.Name] {
			out = append(out, fmt.Sprint(c.Name, c.Rules))
		}
	}
	slices.Sort(out)
	return out
}

func keys[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
