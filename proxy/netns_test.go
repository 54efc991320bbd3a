package proxy

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"flyball.dev/nft"
)

// The network of the kernel tests, which nothing leaves: a node with a bridge
// for its Pods, and a client on another link.
//
//	client 192.0.2.2 ── 192.0.2.1 node 10.42.0.1 ══ pods 10.42.0.11, .12, .13
var (
	nodeIP      = netip.MustParseAddr("192.0.2.1")
	clientIP    = netip.MustParseAddr("192.0.2.2")
	gatewayIP   = netip.MustParseAddr("10.42.0.1")
	clusterCIDR = netip.MustParsePrefix("10.42.0.0/16")
	serviceCIDR = netip.MustParsePrefix("10.43.0.0/16")
)

func testConfig() Config {
	return Config{
		NodeName: "node", NodeIPs: []netip.Addr{nodeIP},
		ClusterCIDRs: []netip.Prefix{clusterCIDR}, ServiceCIDRs: []netip.Prefix{serviceCIDR},
	}
}

func podIP(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 42, 0, byte(11 + i)}) }

type lab struct {
	t            testing.TB
	node, client *space
	pods         []*space
	table        *table
	conntrack    nft.Kernel
	state        *State
}

// space is a network namespace.
type space struct {
	t      testing.TB
	ns     netns.NsHandle
	handle *netlink.Handle
}

func newSpace(tb testing.TB) *space {
	tb.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(tb, err)
	defer home.Close()
	ns, err := netns.New()
	must(tb, err)
	must(tb, netns.Set(home))
	handle, err := netlink.NewHandleAt(ns)
	must(tb, err)
	s := &space{tb, ns, handle}
	tb.Cleanup(func() { handle.Close(); ns.Close() })
	lo, err := handle.LinkByName("lo")
	must(tb, err)
	must(tb, handle.LinkSetUp(lo))
	return s
}

// in runs a function on a thread that is in the namespace.
func (s *space) in(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock: the thread ends with this goroutine
		if err := netns.Set(s.ns); err != nil {
			result <- err
			return
		}
		result <- f()
	}()
	return <-result
}

func (s *space) sysctl(name, value string) {
	s.t.Helper()
	must(s.t, s.in(func() error {
		return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0o644)
	}))
}

// join links two namespaces and returns the two ends.
func join(a *space, aName string, b *space, bName string) (netlink.Link, netlink.Link) {
	a.t.Helper()
	must(a.t, a.handle.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: aName}, PeerName: bName, PeerNamespace: netlink.NsFd(int(b.ns)),
	}))
	la, err := a.handle.LinkByName(aName)
	must(a.t, err)
	lb, err := b.handle.LinkByName(bName)
	must(a.t, err)
	must(a.t, a.handle.LinkSetUp(la))
	must(a.t, b.handle.LinkSetUp(lb))
	return la, lb
}

func (s *space) addr(l netlink.Link, cidr string) {
	s.t.Helper()
	a, err := netlink.ParseAddr(cidr)
	must(s.t, err)
	must(s.t, s.handle.AddrAdd(l, a))
}

func (s *space) route(cidr string, r netlink.Route) {
	s.t.Helper()
	_, dst, err := net.ParseCIDR(cidr)
	must(s.t, err)
	r.Dst = dst
	must(s.t, s.handle.RouteAdd(&r))
}

func newLab(tb testing.TB) *lab {
	tb.Helper()
	if os.Getuid() != 0 {
		tb.Skip("network namespaces need root")
	}
	l := &lab{t: tb, node: newSpace(tb), client: newSpace(tb)}
	l.node.sysctl("ipv4/ip_forward", "1")
	// Tests get themselves refused more often than the kernel likes to answer.
	l.node.sysctl("ipv4/icmp_ratelimit", "0")
	l.node.sysctl("ipv4/conf/all/send_redirects", "0")
	l.node.sysctl("ipv4/conf/default/send_redirects", "0")
	up, eth := join(l.node, "up0", l.client, "eth0")
	l.node.addr(up, nodeIP.String()+"/24")
	l.client.addr(eth, clientIP.String()+"/24")
	l.client.route("0.0.0.0/0", netlink.Route{Gw: nodeIP.AsSlice()})

	must(tb, l.node.handle.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}))
	br, err := l.node.handle.LinkByName("br0")
	must(tb, err)
	must(tb, l.node.handle.LinkSetUp(br))
	l.node.addr(br, gatewayIP.String()+"/24")
	for i := range 3 {
		pod := newSpace(tb)
		port, eth := join(l.node, fmt.Sprintf("pod%d", i), pod, "eth0")
		must(tb, l.node.handle.LinkSetMaster(port, br))
		must(tb, l.node.handle.LinkSetHairpin(port, true))
		pod.addr(eth, podIP(i).String()+"/24")
		pod.route("0.0.0.0/0", netlink.Route{Gw: gatewayIP.AsSlice()})
		l.pods = append(l.pods, pod)
	}
	// Nothing leaves the host. Connections from the node itself need a way
	// to cluster IPs before NAT gets to see them.
	l.node.route("10.42.0.0/16", netlink.Route{Type: unix.RTN_UNREACHABLE})
	l.node.route("10.43.0.0/16", netlink.Route{Type: unix.RTN_UNREACHABLE, Priority: 4096})
	l.node.route("10.43.0.0/16", netlink.Route{LinkIndex: br.Attrs().Index, Src: nodeIP.AsSlice()})

	l.conntrack = nft.Kernel{NetNS: int(l.node.ns)}
	l.table = newTable(testConfig(), l.conntrack)
	l.state = NewState()
	must(tb, l.table.rebuild(l.state.All()))
	return l
}

// set writes a Service.
func (l *lab) set(svc Service) {
	l.t.Helper()
	l.state.Set(svc.Name, l.state.PlanService(svc, []netip.Addr{nodeIP}))
	l.flush()
}

func (l *lab) flush() {
	l.t.Helper()
	c := l.state.Take()
	must(l.t, l.table.apply(c))
	if len(c.Stale) > 0 {
		must(l.t, l.conntrack.DeleteConnections(nft.IPv4, newUDPEndpoints(c.Stale).stale))
	}
}

// serve answers on a port of each Pod with the Pod's number and the address the
// client seems to have.
func (l *lab) serve(port int) {
	for i, pod := range l.pods {
		pod.serveTCP(port, fmt.Sprint(i))
		pod.serveUDP(port, fmt.Sprint(i))
	}
}

func (s *space) serveTCP(port int, name string) {
	s.t.Helper()
	var listener net.Listener
	must(s.t, s.in(func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	}))
	s.t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for lines := bufio.NewScanner(c); lines.Scan(); {
					fmt.Fprintf(c, "%s %s\n", name, c.RemoteAddr())
				}
			}()
		}
	}()
}

func (s *space) serveUDP(port int, name string) {
	s.t.Helper()
	var conn net.PacketConn
	must(s.t, s.in(func() (err error) {
		conn, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port))
		return err
	}))
	s.t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(fmt.Appendf(nil, "%s %s\n", name, from), from)
		}
	}()
}

// answer is what a server answers: which Pod it is, and the client that it sees.
type answer struct {
	pod  string
	from netip.Addr
}

// answerTimeout is for answers that must come, on a busy host.
const answerTimeout = 3 * time.Second

func (s *space) dial(network, to string) (net.Conn, error) {
	return s.dialWithin(answerTimeout, network, to)
}

func (s *space) dialWithin(timeout time.Duration, network, to string) (c net.Conn, err error) {
	return c, s.in(func() error {
		c, err = (&net.Dialer{Timeout: timeout}).Dial(network, to)
		return err
	})
}

func ask(c net.Conn) (answer, error) { return askWithin(answerTimeout, c) }

func askWithin(timeout time.Duration, c net.Conn) (answer, error) {
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err := c.Write([]byte("?\n")); err != nil {
		return answer{}, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return answer{}, err
	}
	pod, from, _ := strings.Cut(strings.TrimSpace(line), " ")
	return answer{pod, netip.MustParseAddrPort(from).Addr()}, nil
}

// ask opens a connection, asks once, and closes it.
func (s *space) ask(network, to string) (answer, error) {
	return s.askWithin(answerTimeout, network, to)
}

func (s *space) askWithin(timeout time.Duration, network, to string) (answer, error) {
	c, err := s.dialWithin(timeout, network, to)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	return askWithin(timeout, c)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
