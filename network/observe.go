package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
)

// routeProtocol marks the routes that are ours, as 2 marks the kernel's and 186 BGP's.
const routeProtocol = 251

const fallbackMTU = 1500

// observe reads links, IPv4 addresses and IPv4 routes.
func observe() (Host, error) {
	h := Host{Addresses: map[string][]netip.Prefix{}, DefaultMTU: fallbackMTU}
	links, err := dumped(netlink.LinkList())
	if err != nil {
		return Host{}, fmt.Errorf("listing network interfaces: %w", err)
	}
	byIndex := map[int]netlink.Link{}
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
	}
	for _, l := range links {
		if l.Attrs().Name == Bridge {
			h.HasBridge, h.BridgeMTU = true, l.Attrs().MTU
			h.BridgeUp = l.Attrs().Flags&net.FlagUp != 0
		}
		if master := byIndex[l.Attrs().MasterIndex]; master != nil && master.Attrs().Name == Bridge {
			h.Ports = append(h.Ports, l.Attrs().Name)
		}
	}
	addresses, err := dumped(netlink.AddrList(nil, netlink.FAMILY_V4))
	if err != nil {
		return Host{}, fmt.Errorf("listing addresses: %w", err)
	}
	for _, a := range addresses {
		p, link := prefix(a.IPNet), byIndex[a.LinkIndex]
		switch {
		case !p.IsValid() || link == nil:
		case link.Attrs().Name == Bridge:
			h.BridgeAddress = append(h.BridgeAddress, p)
		case link.Attrs().Flags&net.FlagLoopback != 0:
			h.LoopbackAddresses = append(h.LoopbackAddresses, p)
		default:
			h.Addresses[link.Attrs().Name] = append(h.Addresses[link.Attrs().Name], p)
		}
	}
	main := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	routes, err := dumped(netlink.RouteListFiltered(netlink.FAMILY_V4, main, netlink.RT_FILTER_TABLE))
	if err != nil {
		return Host{}, fmt.Errorf("listing routes: %w", err)
	}
	for _, r := range routes {
		h.addRoute(r, byIndex)
	}
	return h, nil
}

func (h *Host) addRoute(r netlink.Route, links map[int]netlink.Link) {
	route := Route{To: prefix(r.Dst), Metric: r.Priority, Unreachable: r.Type != unix.RTN_UNICAST}
	if r.Dst == nil {
		route.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	if via, ok := netip.AddrFromSlice(r.Gw); ok {
		route.Via = via.Unmap()
	}
	link := links[r.LinkIndex]
	if link != nil && !route.Unreachable {
		route.Dev = link.Attrs().Name
	}
	if r.Protocol == routeProtocol {
		if route.Via.IsValid() {
			route.Dev = "" // the kernel found it by the gateway
		}
		h.Routes = append(h.Routes, route)
		return
	}
	if route.To.Bits() == 0 && link != nil && link.Attrs().MTU > 0 && h.DefaultMTU == fallbackMTU {
		h.DefaultMTU = link.Attrs().MTU
	}
	if route.Dev != Bridge {
		h.Foreign = append(h.Foreign, route)
	}
}

// dumped hides the interruption of a dump by a change meanwhile: what was read is enough, and the
// next sync reads the rest.
func dumped[T any](list []T, err error) ([]T, error) {
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return list, nil
	}
	return list, err
}

func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), bits)
}

// trimNode keeps of a Node in the cache what toNodes reads.
func trimNode(obj any) (any, error) {
	n, ok := obj.(*corev1.Node)
	if !ok {
		return obj, nil
	}
	small := &corev1.Node{
		Spec:   corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs},
		Status: corev1.NodeStatus{Addresses: n.Status.Addresses},
	}
	small.Name, small.ResourceVersion, small.UID = n.Name, n.ResourceVersion, n.UID
	return small, nil
}

// toNodes reads Nodes: their IPv4 ranges and addresses, so far.
func toNodes(objects []any) []Node {
	var nodes []Node
	for _, o := range objects {
		n, ok := o.(*corev1.Node)
		if !ok {
			continue
		}
		node := Node{Name: n.Name}
		cidrs := n.Spec.PodCIDRs
		if len(cidrs) == 0 {
			cidrs = []string{n.Spec.PodCIDR}
		}
		for _, cidr := range cidrs {
			if p, err := netip.ParsePrefix(cidr); err == nil && p.Addr().Is4() {
				node.PodCIDRs = append(node.PodCIDRs, p.Masked())
			}
		}
		for _, a := range n.Status.Addresses {
			if ip, err := netip.ParseAddr(a.Address); a.Type == corev1.NodeInternalIP && err == nil && ip.Is4() {
				node.InternalIPs = append(node.InternalIPs, ip)
			}
		}
		nodes = append(nodes, node)
	}
	return nodes
}
