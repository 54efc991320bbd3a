package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// staleFlows matches the UDP conntrack entries that lead to endpoints which
// their frontend does not have, or to none at all though it has some.
type staleFlows struct {
	byAddr map[netip.AddrPort][]netip.AddrPort
	byPort map[uint16][]netip.AddrPort // frontends on every address of this host
	local  []netip.Addr
}

func newStaleFlows(flows []Flow, local []netip.Addr) staleFlows {
	s := staleFlows{map[netip.AddrPort][]netip.AddrPort{}, map[uint16][]netip.AddrPort{}, local}
	for _, f := range flows {
		if f.Addr == (ip{}) {
			s.byPort[f.Port] = f.Backends
		} else {
			s.byAddr[netip.AddrPortFrom(f.Addr.addr(), f.Port)] = f.Backends
		}
	}
	return s
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, from := addrPort(f.Forward.DstIP, f.Forward.DstPort), addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)
	if backends, ok := s.byAddr[to]; ok {
		return !slices.Contains(backends, from)
	}
	backends, ok := s.byPort[to.Port()]
	if !ok || !slices.Contains(s.local, to.Addr()) {
		return false
	}
	if len(backends) == 0 && from == to {
		return false // a process of this host has the port now
	}
	return !slices.Contains(backends, from)
}

func addrPort(addr net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// conntrack deletes stale entries. handle decides in which network namespace.
type conntrack struct{ handle *netlink.Handle }

func (c conntrack) clean(flows []Flow) error {
	if len(flows) == 0 {
		return nil
	}
	local, err := c.local()
	if err != nil {
		return err
	}
	if _, err := c.handle.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, newStaleFlows(flows, local)); err != nil {
		return fmt.Errorf("deleting stale UDP conntrack entries: %w", err)
	}
	return nil
}

func (c conntrack) local() ([]netip.Addr, error) {
	var local []netip.Addr
	addrs, err := c.handle.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("listing the host's addresses: %w", err)
	}
	for _, a := range addrs {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			local = append(local, ip.Unmap())
		}
	}
	return local, nil
}

// translated matches connections whose destination was rewritten and was one of
// ours.
type translated struct {
	frontends map[frontend]bool
	local     []netip.Addr
}

// frontend is a destination that the table translates; the zero ip is any
// address of this host.
type frontend struct {
	addr     ip
	protocol Protocol
	port     uint16
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (t translated) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	to, from := addrPort(f.Forward.DstIP, f.Forward.DstPort), addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)
	if to == from {
		return false
	}
	at := frontend{toIP(to.Addr()), Protocol(f.Forward.Protocol), to.Port()}
	if t.frontends[at] {
		return true
	}
	at.addr = ip{}
	return t.frontends[at] && slices.Contains(t.local, to.Addr())
}

// forget deletes the entries of connections to any of the frontends.
func (c conntrack) forget(frontends map[frontend]bool) error {
	if len(frontends) == 0 {
		return nil
	}
	local, err := c.local()
	if err != nil {
		return err
	}
	if _, err := c.handle.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, translated{frontends, local}); err != nil {
		return fmt.Errorf("deleting conntrack entries of Services: %w", err)
	}
	return nil
}
