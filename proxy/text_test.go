package proxy

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"flyball.dev/nft"
)

var update = flag.Bool("update", false, "write the golden files again")

// text is the element in nft's syntax; class returns a class's chain by number.
func (e Element) text(class func(uint32) string) string {
	k := e.Key
	at := func(a fmt.Stringer, p Protocol, port uint16) string { return fmt.Sprintf("%s . %s . %d", a, p, port) }
	switch k.Map {
	case Frontends:
		return fmt.Sprintf("%s : %s", at(k.Addr, k.Protocol, k.Port), class(e.Class))
	case HostPorts:
		return fmt.Sprintf("%s : %s . %d", at(k.Addr, k.Protocol, k.Port), e.Value.Addr, e.Value.Port)
	case Endpoints:
		return fmt.Sprintf("%s . %d : %s . %d", at(k.Addr, k.Protocol, k.Port), k.Index, e.Value.Addr, e.Value.Port)
	}
	return fmt.Sprintf("%s . %s", k.Addr, k.Addr)
}

// text is the table that a change describes, in nft's syntax, sorted: for tests and for people.
func text(t *testing.T, c Change) string {
	t.Helper()
	fake := nft.NewFake(nodeIP)
	must(t, newTable(testConfig(), fake).rebuild(c))
	written, err := fake.Read(ipv4().table())
	must(t, err)
	slices.SortFunc(written.Chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
	return written.String()
}

// TestGolden compares the whole table for Services of every kind.
func TestGolden(t *testing.T) {
	ips := func(list ...string) []netip.Addr { return addrs(list) }
	some := Service{Name: "default/everything"}
	for i, change := range []func(*ServicePort){
		func(p *ServicePort) { p.NodePort = 30001 },
		func(p *ServicePort) { p.Protocol, p.ExternalIPs = SCTP, ips("198.51.100.1") },
		func(p *ServicePort) { p.InternalLocal, p.ExternalLocal, p.NodePort = true, true, 30003 },
		func(p *ServicePort) { p.Affinity, p.NodePort = 10800, 30004 },
		func(p *ServicePort) {
			p.LoadBalancerIPs, p.SourceRanges = ips("198.51.100.2"), prefixes([]string{"192.0.2.0/24", "10.0.0.0/8"})
		},
		func(p *ServicePort) { p.Endpoints, p.NodePort = nil, 30006 },
		func(p *ServicePort) {
			p.ExternalLocal, p.NodePort, p.Affinity, p.Protocol = true, 30007, 60, UDP
			remote(p.Endpoints)
		},
	} {
		p := ServicePort{ClusterIP: netip.AddrFrom4([4]byte{10, 43, 0, byte(i + 1)}), Protocol: TCP, Port: uint16(i + 1), Endpoints: endpoints(0, 1)}
		remote(p.Endpoints[1:])
		change(&p)
		some.Ports = append(some.Ports, p)
	}
	pod := HostPortPod{Name: "default/pod", Addr: podIP(2), Ports: []HostPortMapping{
		{netip.IPv4Unspecified(), TCP, 8080, 80},
		{nodeIP, UDP, 53, 5353},
	}}
	s := NewState()
	s.Set(some.Name, s.PlanService(some, []netip.Addr{nodeIP}))
	s.Set(pod.Name, PlanPod(pod))
	got := text(t, s.All())
	const file = "testdata/table.nft"
	if *update {
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" {
		t.Errorf("run with -update if that is meant; -want +got:\n%s", diff)
	}
}
