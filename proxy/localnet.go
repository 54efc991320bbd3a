package proxy

import (
	"fmt"
	"net"
	"net/netip"
	"os"
)

// localnet lets the host reach host ports on 127.0.0.1: the kernel routes packets with a loopback
// source to a Pod's link only if route_localnet is set there. The chain guard-loopback drops those
// of the opposite direction. It holds the links that are set, by index: a bridge that is deleted
// and created again has another one.
type localnet map[int]bool

// allow sets route_localnet on the links of the Pods that have the added host ports.
func (l localnet) allow(added []Element) error {
	for _, e := range added {
		if e.Map != HostPorts {
			continue
		}
		link, err := linkTo(e.Value.Addr.addr())
		if err != nil {
			return err
		}
		if l[link.Index] {
			continue
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+link.Name+"/route_localnet", []byte("1"), 0o644); err != nil {
			return fmt.Errorf("setting route_localnet on %s: %w", link.Name, err)
		}
		l[link.Index] = true
	}
	return nil
}

// linkTo finds the link that a Pod of this node is on: the one with an address in the Pod's
// network.
func linkTo(pod netip.Addr) (net.Interface, error) {
	links, err := net.Interfaces()
	if err != nil {
		return net.Interface{}, fmt.Errorf("listing network interfaces: %w", err)
	}
	for _, l := range links {
		addrs, _ := l.Addrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && !p.IsSingleIP() && p.Contains(pod) {
				return l, nil
			}
		}
	}
	return net.Interface{}, fmt.Errorf("finding the link to Pod %s: no interface has an address in its network", pod)
}
