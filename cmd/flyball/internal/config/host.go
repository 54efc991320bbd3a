package config

import (
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"flyball.dev/cmd/flyball/internal/config/v1alpha1"
)

// hostDefaults asks the machine for its name, and for its address: the one that the server is reached from, if there is one
// elsewhere, since the nodes of a cluster are mostly reached the same way.
func hostDefaults(server string) v1alpha1.HostDefaults {
	name, _ := os.Hostname()
	d := v1alpha1.HostDefaults{NodeName: strings.ToLower(name)}
	if u, err := url.Parse(server); err == nil && u.Hostname() != "" {
		if d.NodeIP = leavingFrom(net.JoinHostPort(u.Hostname(), "9")); d.NodeIP.IsLoopback() {
			d.NodeIP = netip.Addr{}
		}
	}
	if !d.NodeIP.IsValid() {
		d.NodeIP = nodeAddress()
	}
	return d
}

// leavingFrom is the address that packets to another one leave from; invalid if there is no way there. Connecting a UDP
// socket sends nothing: the kernel only looks the route up.
func leavingFrom(to string) netip.Addr {
	conn, err := net.Dial("udp4", to)
	if err != nil {
		return netip.Addr{}
	}
	defer conn.Close()
	addr, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}
	}
	return addr.AddrPort().Addr().Unmap()
}

// nodeAddress is the address that the default route leaves from, or the first IPv4 address of an interface that is up
// when there is no default route; invalid if there is neither.
func nodeAddress() netip.Addr {
	// An address of TEST-NET-2, which only the default route leads to.
	if addr := leavingFrom("198.51.100.1:9"); addr.IsValid() {
		return addr
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Addr{}
	}
	for _, a := range addrs {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Is4() && prefix.Addr().IsGlobalUnicast() {
			return prefix.Addr()
		}
	}
	return netip.Addr{}
}
