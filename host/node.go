// Package host reads what a host calls itself and where it is reached. The folders below it have
// what Flyball needs of a host and what a host gets back: checks before the start, the lock of one
// instance, the supervisor of all components, their status, and teardown.
package host

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"flyball.dev/apis/config"
	"flyball.dev/apis/config/v1alpha1"
)

// resolveTimeout is long enough to resolve a server's name. Resolvers wait longer for a name server
// that does not answer.
const resolveTimeout = 5 * time.Second

// Complete fills in the defaults, those of this host included, and validates.
func Complete(c v1alpha1.FlyballConfiguration) (*config.Config, error) {
	server := c.Server
	if c.NodeIP != "" {
		server = "" // no need to resolve its name
	}
	d, unresolved := defaults(net.DefaultResolver, resolveTimeout, server)
	v1alpha1.SetDefaults(&c, d)
	completed, err := config.Parse(c)
	if err == nil {
		err = unresolved
	}
	return completed, err
}

// defaults returns the name and the address that the Node of this host gets. With a server on
// another host, the address is the one that packets to the server leave from: the nodes of a
// cluster mostly reach each other the same way. A server whose name cannot be resolved within the
// timeout is an error, because any other address would be a guess.
func defaults(names *net.Resolver, timeout time.Duration, server string) (v1alpha1.HostDefaults, error) {
	name, _ := os.Hostname()
	d := v1alpha1.HostDefaults{NodeName: nodeName(name), NodeIP: nodeAddress()}
	u, err := url.Parse(server)
	if err != nil || u.Hostname() == "" {
		return d, nil // validation says what a URL is
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	at, err := names.LookupNetIP(ctx, "ip4", u.Hostname())
	if err != nil {
		return d, fmt.Errorf("finding the address that this machine reaches %s from, within %s: %w; --server takes a name that this machine can look up, or an address, and --node-ip says which address of this machine to use",
			server, timeout, err)
	}
	if from := sourceAddress(netip.AddrPortFrom(at[0].Unmap(), discard).String()); from.IsValid() && !from.IsLoopback() {
		d.NodeIP = from
	}
	return d, nil
}

// nodeName is the name of the Node of a host with this name, as upstream's kubelet has it. A
// trailing dot makes a name absolute and does not belong to it.
func nodeName(host string) string {
	return strings.TrimSuffix(strings.ToLower(strings.TrimSpace(host)), ".")
}

// discard is a port that nothing is sent to.
const discard = 9

// sourceAddress is the address that packets to another one leave from; invalid if there is no
// route. Connecting a UDP socket sends nothing: the kernel only finds the route.
func sourceAddress(to string) netip.Addr {
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

// nodeAddress is the address that the default route leaves from, or the first IPv4 address of an
// interface that is up when there is no default route; invalid if there is neither.
func nodeAddress() netip.Addr {
	// An address of TEST-NET-2, which only the default route leads to.
	if addr := sourceAddress("198.51.100.1:9"); addr.IsValid() {
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
