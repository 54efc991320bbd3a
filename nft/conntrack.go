package nft

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Connection is an entry of the conntrack table. NAT rules see only a connection's first packet;
// the entry keeps what they decided. So a change of NAT rules is complete only when the entries
// that contradict it are deleted.
type Connection struct {
	Protocol uint8
	// Client is the source of the first packet, Destination its destination. Server is the address
	// that answers: another one than Destination if that was translated.
	Client, Destination, Server netip.AddrPort
	// Local is set if Destination is an address of this host.
	Local bool
}

// DeleteConnections deletes the entries of a family's connections that match, so that the rules are
// applied to the connections' next packets.
func (k Kernel) DeleteConnections(family Family, match func(Connection) bool) error {
	number := netlink.InetFamily(unix.AF_INET)
	if family == IPv6 {
		number = unix.AF_INET6
	}
	ns := netns.None()
	if k.NetNS != 0 {
		ns = netns.NsHandle(k.NetNS)
	}
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("opening netlink for conntrack (root is needed): %w", err)
	}
	defer handle.Close()
	addrs, err := handle.AddrList(nil, int(number))
	if err != nil {
		return fmt.Errorf("listing the host's addresses: %w", err)
	}
	f := filter{match, map[netip.Addr]bool{}}
	for _, a := range addrs {
		f.local[addrPort(a.IP, 0).Addr()] = true
	}
	if _, err := handle.ConntrackDeleteFilters(netlink.ConntrackTable, number, f); err != nil {
		return fmt.Errorf("deleting conntrack entries: %w", err)
	}
	return nil
}

// filter implements netlink.CustomConntrackFilter.
type filter struct {
	match func(Connection) bool
	local map[netip.Addr]bool
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f filter) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to := addrPort(flow.Forward.DstIP, flow.Forward.DstPort)
	return f.match(Connection{
		Protocol: flow.Forward.Protocol, Destination: to, Local: f.local[to.Addr()],
		Client: addrPort(flow.Forward.SrcIP, flow.Forward.SrcPort),
		Server: addrPort(flow.Reverse.SrcIP, flow.Reverse.SrcPort),
	})
}

func addrPort(addr net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a.Unmap(), port)
}
