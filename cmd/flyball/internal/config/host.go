package config

import (
	"net"
	"net/netip"
	"os"
	"strings"

	"flyball.dev/cmd/flyball/internal/config/v1alpha1"
)

// hostDefaults asks the machine for its name and address.
func hostDefaults() v1alpha1.HostDefaults {
	name, _ := os.Hostname()
	return v1alpha1.HostDefaults{NodeName: strings.ToLower(name), NodeIP: nodeAddress()}
}

// nodeAddress is the address that the default route leaves from, or the first IPv4 address of an interface that is up
// when there is no default route; invalid if there is neither.
func nodeAddress() netip.Addr {
	// Connecting a UDP socket sends nothing: the kernel only looks the route up. The address is TEST-NET-2's.
	if conn, err := net.Dial("udp4", "198.51.100.1:9"); err == nil {
		defer conn.Close()
		if addr, ok := conn.LocalAddr().(*net.UDPAddr); ok {
			return addr.AddrPort().Addr().Unmap()
		}
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
