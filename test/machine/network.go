//go:build linux

package main

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// eth0 is the machine's end of the link.
const eth0 = "eth0"

func (m Machine) linkName() string { return "fbm-" + m.Name }

// link makes the veth pair between the host and the machine's network namespace, and sets up the host's end.
func (m Machine) link(pid int) error {
	if err := m.free(); err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: m.linkName()}, PeerName: eth0, PeerNamespace: netlink.NsPid(pid),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("making the link %s: %w", m.linkName(), err)
	}
	return setLink(m.linkName(), m.Host)
}

// free returns an error if the host has the network of the link elsewhere: another machine's, say.
func (n Network) free() error {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("listing the host's addresses: %w", err)
	}
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Overlaps(n.Host) {
			return fmt.Errorf("making the link: the host has the address %s already; choose others with --host and --address", p)
		}
	}
	return nil
}

// unlink removes the pair. It goes with the namespace too, but later.
func (m Machine) unlink() error {
	link, err := netlink.LinkByName(m.linkName())
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var gone netlink.LinkNotFoundError
	if err == nil || errors.As(err, &gone) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return fmt.Errorf("removing the link %s: %w", m.linkName(), err)
}

// setUp sets up the machine's end, from within. The unreachable routes come first: before that, there is no other route.
func (n Network) setUp() error {
	for _, prefix := range n.Unreachable {
		// A node's own routes, its unreachable ones included, come before these and may be removed.
		route := &netlink.Route{Dst: ipNet(prefix), Type: unix.RTN_UNREACHABLE, Priority: math.MaxInt32}
		if err := netlink.RouteAdd(route); err != nil {
			return fmt.Errorf("making %s unreachable: %w", prefix, err)
		}
	}
	if err := setLink("lo", netip.Prefix{}); err != nil {
		return err
	}
	if err := setLink(eth0, n.Address); err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{Gw: n.Host.Addr().AsSlice()}); err != nil {
		return fmt.Errorf("setting the default route: %w", err)
	}
	return nil
}

func setLink(name string, address netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("setting up the link %s: %w", name, err)
	}
	if address.IsValid() {
		if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: address.Addr().AsSlice(), Mask: mask(address)}}); err != nil {
			return fmt.Errorf("setting the address %s of the link %s: %w", address, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting up the link %s: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: mask(p)}
}

func mask(p netip.Prefix) net.IPMask { return net.CIDRMask(p.Bits(), p.Addr().BitLen()) }
