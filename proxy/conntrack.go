package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// frontend is a destination that the table translates; the zero ip is any address of this host.
type frontend struct {
	addr     ip
	protocol Protocol
	port     uint16
}

// staleFlows matches the UDP conntrack entries that lead to endpoints which their frontend does not
// have, or to none at all though it has some.
type staleFlows struct {
	backends map[frontend][]netip.AddrPort
	local    []netip.Addr
}

func newStaleFlows(flows []Flow, local []netip.Addr) staleFlows {
	s := staleFlows{map[frontend][]netip.AddrPort{}, local}
	for _, f := range flows {
		s.backends[frontend{f.Addr, UDP, f.Port}] = f.Backends
	}
	return s
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (s staleFlows) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	if f.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, from := addrPort(f.Forward.DstIP, f.Forward.DstPort), addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)
	backends, ok := s.backends[frontend{toIP(to.Addr()), UDP, to.Port()}]
	if !ok {
		backends, ok = s.backends[frontend{ip{}, UDP, to.Port()}]
		if !slices.Contains(s.local, to.Addr()) || len(backends) == 0 && from == to {
			return false // it is another host's port, or one of a process of this host
		}
	}
	return ok && !slices.Contains(backends, from)
}

func addrPort(addr net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), port)
}

// conntrack deletes entries. handle decides in which network namespace.
type conntrack struct{ handle *netlink.Handle }

type filter = netlink.CustomConntrackFilter

// clean deletes the stale entries of frontends.
func (c conntrack) clean(flows []Flow) error {
	return c.delete(len(flows) > 0, func(local []netip.Addr) filter { return newStaleFlows(flows, local) })
}

// forget deletes the entries of connections to any of the frontends.
func (c conntrack) forget(frontends map[frontend]bool) error {
	return c.delete(len(frontends) > 0, func(local []netip.Addr) filter { return translated{frontends, local} })
}

// delete deletes what a filter matches, which is made for the host's addresses.
func (c conntrack) delete(some bool, matching func(local []netip.Addr) filter) error {
	if !some {
		return nil
	}
	addrs, err := c.handle.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("listing the host's addresses: %w", err)
	}
	var local []netip.Addr
	for _, a := range addrs {
		local = append(local, addrPort(a.IP, 0).Addr())
	}
	if _, err := c.handle.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.FAMILY_V4, matching(local)); err != nil {
		return fmt.Errorf("deleting conntrack entries of Services: %w", err)
	}
	return nil
}

// translated matches connections whose destination was rewritten and was one of ours.
type translated struct {
	frontends map[frontend]bool
	local     []netip.Addr
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (t translated) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	to, from := addrPort(f.Forward.DstIP, f.Forward.DstPort), addrPort(f.Reverse.SrcIP, f.Reverse.SrcPort)
	if to == from {
		return false
	}
	at := frontend{toIP(to.Addr()), Protocol(f.Forward.Protocol), to.Port()}
	anyAddr := frontend{ip{}, at.protocol, at.port}
	return t.frontends[at] || t.frontends[anyAddr] && slices.Contains(t.local, to.Addr())
}
