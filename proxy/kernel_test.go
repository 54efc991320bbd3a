package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
)

// web is a Service, TCP and UDP, with the given Pods behind it.
func web(change func(*ServicePort), pods ...int) Service {
	svc := Service{Name: "default/web"}
	for _, proto := range []Protocol{TCP, UDP} {
		p := ServicePort{ClusterIP: netip.MustParseAddr("10.43.0.80"), Protocol: proto, Port: 80, Endpoints: endpoints(pods...)}
		if change != nil {
			change(&p)
		}
		svc.Ports = append(svc.Ports, p)
	}
	return svc
}

func endpoints(pods ...int) []Endpoint {
	var out []Endpoint
	for _, i := range pods {
		out = append(out, Endpoint{Addr: netip.AddrPortFrom(podIP(i), 8080), Local: true, Ready: true, Serving: true})
	}
	return out
}

func remote(endpoints []Endpoint) []Endpoint {
	for i := range endpoints {
		endpoints[i].Local = false
	}
	return endpoints
}

const (
	webIP    = "10.43.0.80:80"
	nodePort = "192.0.2.1:30080"
)

var both = []string{"tcp", "udp"}

// expect asks n times and checks who answers, and whom they see.
func (l *lab) expect(s *space, network, to string, n int, from netip.Addr, pods ...string) {
	l.t.Helper()
	seen := map[string]bool{}
	for range n {
		a, err := s.ask(network, to)
		if err != nil {
			l.t.Fatalf("%s %s: %v", network, to, err)
		}
		if a.from != from {
			l.t.Fatalf("%s %s: the Pod sees %s, want %s", network, to, a.from, from)
		}
		seen[a.pod] = true
	}
	for _, p := range pods {
		if !seen[p] {
			l.t.Errorf("%s %s: Pod %s never answered in %d tries: %v", network, to, p, n, seen)
		}
		delete(seen, p)
	}
	if len(seen) > 0 {
		l.t.Errorf("%s %s: unexpected Pods answered: %v", network, to, seen)
	}
}

func (l *lab) refused(s *space, network, to string) {
	l.t.Helper()
	_, err := s.ask(network, to)
	if s == l.node && errors.Is(err, syscall.EPERM) {
		return // that is how UDP hears of a packet that was not let out
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		l.t.Fatalf("%s %s: got %v, want connection refused", network, to, err)
	}
}

func (l *lab) dropped(s *space, network, to string) {
	l.t.Helper()
	if _, err := s.askWithin(300*time.Millisecond, network, to); !os.IsTimeout(err) {
		l.t.Fatalf("%s %s: got %v, want a timeout", network, to, err)
	}
}

func TestClusterIP(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	l.set(web(nil, 0, 1, 2))
	for _, network := range both {
		l.expect(l.client, network, webIP, 60, gatewayIP, "0", "1", "2") // not of the cluster: masqueraded
		l.expect(l.node, network, webIP, 60, gatewayIP, "0", "1", "2")
	}
	l.set(web(nil, 1, 2))
	for _, network := range both {
		l.expect(l.pods[0], network, webIP, 40, podIP(0), "1", "2")
	}
	l.set(web(nil, 0))
	for _, network := range both {
		l.expect(l.pods[0], network, webIP, 3, gatewayIP, "0") // hairpin
		l.expect(l.pods[1], network, webIP, 3, podIP(1), "0")
	}
}

func TestNoEndpoints(t *testing.T) {
	l := newLab(t)
	l.set(web(func(p *ServicePort) {
		p.NodePort = 30080
		p.ExternalIPs = []netip.Addr{netip.MustParseAddr("198.51.100.7")}
	}))
	for _, network := range both {
		l.refused(l.pods[0], network, webIP)
		l.refused(l.node, network, webIP)
		l.refused(l.client, network, nodePort)
		l.refused(l.client, network, "198.51.100.7:80")
		l.refused(l.pods[0], network, "10.43.0.80:81")  // no such port
		l.refused(l.pods[0], network, "10.43.99.99:80") // no Service's address
		l.refused(l.node, network, "10.43.99.99:80")
	}
}

func TestTrafficPolicies(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	policy := func(internal, external bool) func(*ServicePort) {
		return func(p *ServicePort) {
			p.NodePort, p.InternalLocal, p.ExternalLocal = 30080, internal, external
			p.ExternalIPs = []netip.Addr{netip.MustParseAddr("198.51.100.7")}
			if len(p.Endpoints) > 1 {
				remote(p.Endpoints[1:])
			}
		}
	}
	l.set(web(policy(false, false), 0, 1))
	for _, to := range []string{nodePort, "198.51.100.7:80"} {
		l.expect(l.client, "tcp", to, 40, gatewayIP, "0", "1")
		l.expect(l.client, "udp", to, 40, gatewayIP, "0", "1")
		l.expect(l.pods[2], "tcp", to, 40, gatewayIP, "0", "1")
	}
	l.expect(l.node, "tcp", nodePort, 40, gatewayIP, "0", "1")
	l.expect(l.node, "tcp", "10.42.0.1:30080", 40, gatewayIP, "0", "1") // any address of the node
	l.refused(l.node, "tcp", "127.0.0.1:30080")                         // but loopback

	l.set(web(policy(true, true), 0, 1))
	// UDP clients that happen on the port of a former one would share its fate.
	must(t, l.node.handle.ConntrackTableFlush(netlink.ConntrackTable))
	l.expect(l.pods[2], "tcp", webIP, 20, podIP(2), "0")
	for _, to := range []string{nodePort, "198.51.100.7:80"} {
		l.expect(l.client, "tcp", to, 20, clientIP, "0") // the source is kept
		l.expect(l.client, "udp", to, 20, clientIP, "0")
		l.expect(l.pods[2], "tcp", to, 40, podIP(2), "0", "1") // inside: as if policy Cluster
	}
	l.expect(l.node, "tcp", nodePort, 40, gatewayIP, "0", "1")

	l.set(web(func(p *ServicePort) { policy(true, true)(p); remote(p.Endpoints) }, 0, 1))
	l.dropped(l.pods[2], "tcp", webIP)
	l.dropped(l.client, "tcp", nodePort)
	l.expect(l.pods[2], "tcp", nodePort, 40, podIP(2), "0", "1")
}

// TestNoLocalEndpoint asks every address of a Service with externalTrafficPolicy Local whose
// endpoints are all on other nodes: from here any of them answers, from outside none.
func TestNoLocalEndpoint(t *testing.T) {
	for name, affinity := range map[string]uint32{"without affinity": 0, "with affinity": 60} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.serve(8080)
			l.set(web(func(p *ServicePort) {
				p.NodePort, p.ExternalLocal, p.Affinity = 30080, true, affinity
				p.ExternalIPs = []netip.Addr{netip.MustParseAddr("198.51.100.7")}
				p.LoadBalancerIPs = []netip.Addr{netip.MustParseAddr("198.51.100.8")}
				remote(p.Endpoints)
			}, 0))
			l.node.route("198.51.100.0/24", netlink.Route{Gw: clientIP.AsSlice()}) // where NAT picks the packets up
			for _, network := range both {
				for _, to := range []string{nodePort, "198.51.100.7:80", "198.51.100.8:80"} {
					l.expect(l.pods[2], network, to, 2, podIP(2), "0")
					l.expect(l.node, network, to, 2, gatewayIP, "0")
					l.dropped(l.client, network, to)
				}
			}
		})
	}
}

func TestLoadBalancerSourceRanges(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	allow := func(ranges ...string) Service {
		return web(func(p *ServicePort) {
			p.LoadBalancerIPs, p.SourceRanges = []netip.Addr{netip.MustParseAddr("198.51.100.8")}, prefixes(ranges)
		}, 0)
	}
	l.set(allow())
	l.expect(l.client, "tcp", "198.51.100.8:80", 1, gatewayIP, "0")
	l.set(allow("203.0.113.0/24"))
	l.dropped(l.client, "tcp", "198.51.100.8:80")
	l.set(allow("203.0.113.0/24", "192.0.2.2/31"))
	l.expect(l.client, "tcp", "198.51.100.8:80", 1, gatewayIP, "0")
	l.expect(l.pods[1], "tcp", webIP, 1, podIP(1), "0")
}

// pause lets the kernel's clock run, which no test can turn.
func pause(d time.Duration) { <-time.After(d) }

func TestStaleUDP(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	up := func(p *ServicePort) { p.NodePort = 30080 }
	l.set(web(up, 0))
	for _, to := range []string{webIP, nodePort} {
		l.set(web(up, 0))
		c, err := l.client.dial("udp", to)
		must(t, err)
		defer c.Close()
		for _, pod := range []int{0, 1} {
			l.set(web(up, pod))
			a, err := ask(c) // the same socket all the time
			if err != nil || a.pod != fmt.Sprint(pod) {
				t.Fatalf("%s: got %v %v, want Pod %d", to, a, err, pod)
			}
		}
		l.set(web(up))
		if _, err := ask(c); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("%s: got %v after the last endpoint went, want connection refused", to, err)
		}
		l.set(web(up, 2))
		if a, err := ask(c); err != nil || a.pod != "2" {
			t.Fatalf("%s: got %v %v after the first endpoint came, want Pod 2", to, a, err)
		}
	}
}

func TestOpenConnectionsSurvive(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	l.set(web(nil, 0))
	c, err := l.client.dial("tcp", webIP)
	must(t, err)
	defer c.Close()
	for name, change := range map[string]func(){
		"nothing":                func() {},
		"another endpoint":       func() { l.set(web(nil, 0, 1)) },
		"its endpoint goes away": func() { l.set(web(nil, 1)) },
		"the Service goes away":  func() { l.set(Service{Name: "default/web"}) },
		"a restart":              func() { must(t, l.table.rebuild(l.state.All())) },
	} {
		change()
		if a, err := ask(c); err != nil || a.pod != "0" {
			t.Fatalf("%s: got %v %v", name, a, err)
		}
	}
}

func TestNoGap(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	l.set(web(nil, 0, 1, 2))
	var stop atomic.Bool
	failed := make(chan error, 1)
	go func() {
		for !stop.Load() {
			// Not one of the endpoints: if one that reaches itself is taken
			// away between its DNAT and its masquerading, that is its end.
			if _, err := l.client.ask("tcp", webIP); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	for i := range 60 {
		switch i % 3 {
		case 0:
			must(t, l.table.rebuild(l.state.All()))
		case 1:
			l.set(web(nil, 0, 2))
		default:
			l.set(web(nil, 0, 1, 2))
		}
	}
	stop.Store(true)
	must(t, <-failed)
	if l.table.shift != 20 { // one by newLab, which found no table
		t.Errorf("the chains of the 21st table are not behind those of the 20th: %d", l.table.shift)
	}
}

func TestHostPorts(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	set := func(i int, hostIP netip.Addr) {
		pod := HostPortPod{Name: fmt.Sprint("default/", i), Addr: podIP(i)}
		for _, p := range []Protocol{TCP, UDP} {
			pod.Ports = append(pod.Ports, HostPortMapping{hostIP, p, 9090, 8080})
		}
		l.state.Set("pod/"+pod.Name, PlanPod(pod))
	}
	set(0, netip.IPv4Unspecified())
	set(1, gatewayIP)
	c := l.state.Take()
	must(t, l.table.apply(c))
	must(t, l.node.in(func() error { return localnet{}.allow(c.Add) }))
	for _, network := range both {
		l.expect(l.client, network, "192.0.2.1:9090", 2, clientIP, "0")
		l.expect(l.pods[2], network, "192.0.2.1:9090", 2, podIP(2), "0")
		l.expect(l.pods[0], network, "192.0.2.1:9090", 2, gatewayIP, "0")
		l.expect(l.pods[2], network, "10.42.0.1:9090", 2, podIP(2), "1")
		l.expect(l.node, network, "127.0.0.1:9090", 2, gatewayIP, "0")
		l.expect(l.node, network, "192.0.2.1:9090", 2, nodeIP, "0")
	}
	l.node.serveTCP(7777, "host")
	if _, err := l.pods[0].dial("tcp", "127.0.0.1:7777"); err == nil {
		t.Error("a Pod reached the host's loopback")
	}
}

func TestCleanup(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	l.set(web(func(p *ServicePort) { p.NodePort = 30080 }, 0))
	for _, to := range []string{webIP, nodePort} {
		c, err := l.client.dial("tcp", to)
		must(t, err)
		defer c.Close()
	}
	must(t, cleanup(l.table, l.conntrack))
	must(t, cleanup(l.table, l.conntrack)) // twice is fine
	out := ""
	must(t, l.node.in(func() error {
		b, err := exec.Command("nft", "list", "ruleset").Output()
		out = string(b)
		return err
	}))
	if out != "" {
		t.Errorf("left behind: %s", out)
	}
	flows, err := l.node.handle.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
	must(t, err)
	for _, f := range flows {
		if strings.Contains(f.String(), "dport=80 ") || strings.Contains(f.String(), "dport=30080") {
			t.Errorf("left behind: %s", f)
		}
	}
}

func TestIntact(t *testing.T) {
	l := newLab(t)
	l.serve(8080)
	l.set(web(func(p *ServicePort) { p.Affinity = 10 }, 0, 1))
	check := func(want bool) {
		t.Helper()
		if ok := l.table.intact(l.state.Count()); ok != want {
			t.Errorf("got %v, want %v", ok, want)
		}
	}
	check(true)
	// What the field's tools show must be readable, and must not break them.
	out, err := []byte(nil), error(nil)
	must(t, l.node.in(func() error {
		out, err = exec.Command("nft", "list", "ruleset").CombinedOutput()
		return err
	}))
	if !strings.Contains(string(out), "update @affinity") {
		t.Errorf("nft shows %s", out)
	}
	must(t, l.node.in(func() error { return exec.Command("nft", "flush", "chain", tableName, servicesChain).Run() }))
	check(false)
	must(t, l.table.rebuild(l.state.All()))
	check(true)
	must(t, l.node.in(func() error { return exec.Command("nft", "delete", "table", tableName).Run() }))
	check(false)
	l.state.Set("default/web", Desired{})
	if err := l.table.apply(l.state.Take()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the table is gone", err)
	}
}
