package config

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"flyball.dev/apis/config/v1alpha1"
)

// lookUpWithin bounds looking up the server's name. Resolvers take their time when a name server does not answer.
const lookUpWithin = 5 * time.Second

// hostDefaults asks the machine for its name, and for its address: the one that the server is reached from, if there is one
// elsewhere, since the nodes of a cluster are mostly reached the same way. A server whose name cannot be looked up in time
// is an error: any other address would be a guess.
func hostDefaults(names *net.Resolver, within time.Duration, server string) (v1alpha1.HostDefaults, error) {
	name, _ := os.Hostname()
	d := v1alpha1.HostDefaults{NodeName: nodeName(name), NodeIP: nodeAddress()}
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return d, nil // validation says what a URL is
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	at, err := names.LookupNetIP(ctx, "ip4", u.Hostname())
	if err != nil {
		return d, fmt.Errorf("finding the address that this machine reaches %s from, within %s: %w; --server takes a name that this machine can look up, or an address, and --node-ip says which address of this machine to use",
			server, within, err)
	}
	if from := leavingFrom(netip.AddrPortFrom(at[0].Unmap(), discard).String()); from.IsValid() && !from.IsLoopback() {
		d.NodeIP = from
	}
	return d, nil
}

// nodeName is the name of the Node of a host with this name, as upstream's kubelet has it. A trailing dot says that a name
// is absolute, and is no part of it.
func nodeName(host string) string {
	return strings.TrimSuffix(strings.ToLower(strings.TrimSpace(host)), ".")
}

// discard is a port that nothing is sent to.
const discard = 9

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
