package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// act carries actions out, all of them even if one fails.
func act(actions []Action) error {
	var errs []error
	for _, a := range actions {
		if err := actOne(a); err != nil {
			errs = append(errs, fmt.Errorf("changing the node network (%s): %w", a, err))
		}
	}
	return errors.Join(errs...)
}

func actOne(a Action) error {
	switch a.Do {
	case AddBridge:
		return addBridge(a.Address, a.MTU)
	case AddRoute, RemoveRoute:
		return changeRoute(a.Do, a.Route)
	}
	link, err := netlink.LinkByName(a.Link)
	removes := a.Do == RemoveLink || a.Do == RemoveAddress
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) && removes {
		return nil
	}
	if err != nil {
		return err
	}
	switch a.Do {
	case SetMTU:
		return netlink.LinkSetMTU(link, a.MTU)
	case AddAddress:
		return netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(a.Address)})
	case RemoveAddress:
		return ignore(netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(a.Address)}), unix.EADDRNOTAVAIL)
	case RemoveLink:
		return ignore(netlink.LinkDel(link), unix.ENODEV)
	default:
		return fmt.Errorf("there is no operation %q", a.Do)
	}
}

// addBridge makes the bridge that the CNI plugin would make for the first Pod: so no Pod waits for
// it. Its hardware address is fixed, because a bridge without one takes that of a port, and changes
// it under the Pods' feet when that Pod ends.
func addBridge(gateway netip.Prefix, mtu int) error {
	ip := gateway.Addr().As4()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = Bridge, mtu
	attrs.HardwareAddr = append(net.HardwareAddr{0x0a, 0x58}, ip[:]...)
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := ignore(netlink.LinkAdd(bridge), unix.EEXIST); err != nil {
		return err
	}
	link, err := netlink.LinkByName(Bridge)
	if err != nil {
		return err
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("%s is a %s and not ours; remove or rename it", Bridge, link.Type())
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return err
	}
	// The module comes with the first bridge.
	return enableBridgeNetfilter()
}

func changeRoute(do Operation, r Route) error {
	route := netlink.Route{
		Dst: ipNet(r.To), Priority: r.Metric, Protocol: routeProtocol,
		Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST,
	}
	if r.Unreachable {
		route.Type = unix.RTN_UNREACHABLE
	}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	}
	if r.Dev != "" {
		link, err := netlink.LinkByName(r.Dev)
		if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) && do == RemoveRoute {
			return nil
		}
		if err != nil {
			return err
		}
		route.LinkIndex = link.Attrs().Index
		if !r.Via.IsValid() {
			route.Scope = netlink.SCOPE_LINK
		}
	}
	if do == RemoveRoute {
		return ignore(netlink.RouteDel(&route), unix.ESRCH)
	}
	err := netlink.RouteReplace(&route)
	if r.Via.IsValid() && isAny(err, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL) {
		return fmt.Errorf("%s is in no network that this host has an address in: %w; the nodes of a cluster must "+
			"share a network, so start the other node, or this one, with an address of a shared one (--node-ip)", r.Via, err)
	}
	return err
}

func ignore(err error, harmless ...error) error {
	if isAny(err, harmless...) {
		return nil
	}
	return err
}

func isAny(err error, of ...error) bool {
	return slices.ContainsFunc(of, func(e error) bool { return errors.Is(err, e) })
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
