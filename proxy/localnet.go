package proxy

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
)

// localnet lets the host reach host ports on 127.0.0.1: the kernel routes packets with a loopback
// source to a Pod's link only if route_localnet is set there. The chain guard-loopback drops those
// of the opposite direction. It holds the links that are set, by index: a bridge that is deleted
// and created again has another one.
type localnet map[int]bool

// allow sets route_localnet on the links of the Pods that have the added host ports: those with an
// address in a Pod's network.
func (l localnet) allow(added []Element) error {
	pods := map[netip.Addr]bool{}
	for _, e := range added {
		if e.Map == HostPorts {
			pods[e.Value.Addr.addr()] = true
		}
	}
	if len(pods) == 0 {
		return nil
	}
	links, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("listing network interfaces: %w", err)
	}
	for _, link := range links {
		if !claims(link, pods) || l[link.Index] {
			continue
		}
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+link.Name+"/route_localnet", []byte("1"), 0o644); err != nil {
			return fmt.Errorf("setting route_localnet on %s: %w", link.Name, err)
		}
		l[link.Index] = true
	}
	for pod := range pods {
		return fmt.Errorf("finding the link to Pod %s: no interface has an address in its network", pod)
	}
	return nil
}

// claims takes the Pods whose network the link has an address in out of pods, and reports whether
// there were any.
func claims(link net.Interface, pods map[netip.Addr]bool) bool {
	before := len(pods)
	addrs, _ := link.Addrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.IsSingleIP() {
			maps.DeleteFunc(pods, func(pod netip.Addr, _ bool) bool { return p.Contains(pod) })
		}
	}
	return len(pods) < before
}
