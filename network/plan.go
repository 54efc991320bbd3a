package network

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/samber/lo"
)

const (
	// Bridge is the interface that the Pods of a node share. Each Pod has one port of it.
	Bridge = "flyball0"
	// lastMetric puts a route behind every route that another program may have to the same network.
	lastMetric = 1 << 30
)

// Node is what the network reads of a Node object. Both lists may be empty, as on a Node that has
// just joined.
type Node struct {
	Name        string
	PodCIDRs    []netip.Prefix
	InternalIPs []netip.Addr
}

// internalIP is the Node's first address of the family of a range; the zero address if it has none.
func (n Node) internalIP(of netip.Prefix) netip.Addr {
	a, _ := lo.Find(n.InternalIPs, func(a netip.Addr) bool { return a.Is4() == of.Addr().Is4() })
	return a
}

// Route is a route of ours, marked with our protocol, or in Host.Foreign another program's.
type Route struct {
	To     netip.Prefix
	Via    netip.Addr // a gateway, or unset
	Dev    string     // an interface, or unset
	Metric int
	// Unreachable routes answer with an ICMP error instead of sending the packet anywhere.
	Unreachable bool
}

func (r Route) String() string {
	s := r.To.String()
	if r.Unreachable {
		s = "unreachable " + s
	}
	if r.Via.IsValid() {
		s += " via " + r.Via.String()
	}
	if r.Dev != "" {
		s += " dev " + r.Dev
	}
	if r.Metric != 0 {
		s += fmt.Sprintf(" metric %d", r.Metric)
	}
	return s
}

// Host is what was observed of the host.
type Host struct {
	// Addresses of all interfaces, ours not included, by interface. LoopbackAddresses those of lo.
	Addresses         map[string][]netip.Prefix
	LoopbackAddresses []netip.Prefix
	// Foreign are the routes of the main table that are not ours, Routes those that are.
	Foreign, Routes []Route
	// The bridge, if there is one, its address, hardware address, and the interfaces that are its
	// ports.
	HasBridge     bool
	BridgeUp      bool
	BridgeMTU     int
	BridgeAddress []netip.Prefix
	Ports         []string
	// DefaultMTU is that of the interface with the default route, 1500 without one.
	DefaultMTU int
}

// Wanted is what a node's network should be.
type Wanted struct {
	PodCIDRs []netip.Prefix // empty as long as the Node has none
	Gateways []netip.Prefix // the bridge's own address in each
	MTU      int
	Routes   []Route
}

// Operation is the kind of an Action.
type Operation string

// The operations. Each is idempotent.
const (
	AddBridge     Operation = "add bridge"
	SetMTU        Operation = "set MTU"
	AddAddress    Operation = "add address"
	RemoveAddress Operation = "remove address"
	AddRoute      Operation = "add route"
	RemoveRoute   Operation = "remove route"
	RemoveLink    Operation = "remove link"
)

// Action is one step from what is to what is wanted.
type Action struct {
	Do      Operation
	Link    string
	Address netip.Prefix
	Route   Route
	MTU     int
	Reason  string
}

func (a Action) String() string {
	switch a.Do {
	case AddRoute, RemoveRoute:
		return fmt.Sprintf("%s %s", a.Do, a.Route)
	case AddAddress, RemoveAddress:
		return fmt.Sprintf("%s %s on %s", a.Do, a.Address, a.Link)
	case SetMTU:
		return fmt.Sprintf("%s %d on %s", a.Do, a.MTU, a.Link)
	default:
		return fmt.Sprintf("%s %s", a.Do, a.Link)
	}
}

// conflict returns an error that names the address or route of the host that a range of the cluster
// overlaps. The default route overlaps nothing, nor does a route that leads nowhere.
func conflict(clusters, services []netip.Prefix, h Host) error {
	var errs []error
	for _, cidr := range clusters {
		errs = append(errs, h.overlap(cidr, "cluster CIDR", "clusterCIDR"))
	}
	for _, cidr := range services {
		errs = append(errs, h.overlap(cidr, "Service CIDR", "serviceCIDR"))
	}
	return errors.Join(errs...)
}

func (h *Host) overlap(cidr netip.Prefix, name, option string) error {
	for link, addresses := range h.Addresses {
		for _, a := range addresses {
			if a.Overlaps(cidr) {
				return fmt.Errorf("checking the %s %s: it overlaps the host's address %s on %s; "+
					"set %s to a network that this host does not use", name, cidr, a, link, option)
			}
		}
	}
	for _, r := range h.Foreign {
		if !r.Unreachable && r.To.Bits() > 0 && r.To.Overlaps(cidr) {
			return fmt.Errorf("checking the %s %s: it overlaps the host's route %s; "+
				"set %s to a network that this host does not use", name, cidr, r, option)
		}
	}
	return nil
}

// planBase returns the steps to what a node needs before it is one.
func planBase(clusters, services []netip.Prefix, dns []netip.Addr, h Host) []Action {
	var actions []Action
	for _, cidr := range slices.Concat(clusters, services) {
		r := Route{To: cidr, Unreachable: true, Metric: lastMetric}
		if !slices.Contains(h.Routes, r) {
			reason := "packets to a Pod or Service that does not exist must not leave the host"
			actions = append(actions, Action{Do: AddRoute, Route: r, Reason: reason})
		}
	}
	for _, d := range dns {
		if a := hostPrefix(d); !slices.Contains(h.LoopbackAddresses, a) {
			reason := "the cluster's DNS server answers on this address on every node"
			actions = append(actions, Action{Do: AddAddress, Link: "lo", Address: a, Reason: reason})
		}
	}
	return actions
}

// want returns the network of the node called self.
func want(self string, clusters, services []netip.Prefix, nodes []Node) Wanted {
	var w Wanted
	own := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == self })
	if own < 0 {
		return w
	}
	for _, cidr := range nodes[own].PodCIDRs {
		if usable(cidr, clusters) {
			w.PodCIDRs = append(w.PodCIDRs, cidr)
			w.Gateways = append(w.Gateways, netip.PrefixFrom(cidr.Addr().Next(), cidr.Bits()))
		}
	}
	if len(w.PodCIDRs) == 0 {
		return w
	}
	// A process on the host that connects to a Service needs a route before the proxy may translate
	// the address. A packet that it does not translate gets no answer on the bridge.
	for _, cidr := range services {
		w.Routes = append(w.Routes, Route{To: cidr, Dev: Bridge})
	}
	w.Routes = append(w.Routes, toOthers(nodes[own], clusters, nodes)...)
	slices.SortFunc(w.Routes, compareRoutes)
	return w
}

// toOthers returns the routes to the Pods of the other nodes, each through its node's address. Of
// two nodes that claim the same Pods the first by name gets them; one that claims our own or our
// address gets none.
func toOthers(self Node, clusters []netip.Prefix, nodes []Node) []Route {
	var routes []Route
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		if n.Name == self.Name {
			continue
		}
		for _, cidr := range n.PodCIDRs {
			via := n.internalIP(cidr)
			isPod := func(c netip.Prefix) bool { return c.Contains(via) }
			switch {
			case !usable(cidr, clusters) || slices.ContainsFunc(self.PodCIDRs, cidr.Overlaps):
			case !via.IsValid() || slices.Contains(self.InternalIPs, via) || slices.ContainsFunc(clusters, isPod):
			case slices.ContainsFunc(routes, func(r Route) bool { return r.To.Overlaps(cidr) }):
			default:
				routes = append(routes, Route{To: cidr, Via: via})
			}
		}
	}
	return routes
}

// byOthers separates the actions that depend on other nodes from those that this node needs for
// itself. A node that cannot be reached must not keep the Pods of this one from starting.
func byOthers(actions []Action) (own, others []Action) {
	return lo.FilterReject(actions, func(a Action, _ int) bool { return a.Do != AddRoute || !a.Route.Via.IsValid() })
}

// usable reports whether a podCIDR lies in one of the cluster's and has space for a gateway and a
// Pod.
func usable(pod netip.Prefix, clusters []netip.Prefix) bool {
	within := func(c netip.Prefix) bool { return pod.Bits() >= c.Bits() && c.Contains(pod.Addr()) }
	return pod.IsValid() && pod.Bits() <= pod.Addr().BitLen()-2 && slices.ContainsFunc(clusters, within)
}

// plan returns the steps to w. It leaves what planBase makes alone.
func plan(w Wanted, h Host) []Action {
	var actions []Action
	if len(w.PodCIDRs) > 0 {
		if !h.HasBridge || !h.BridgeUp {
			reason := "the Pods of this node share it"
			actions = append(actions, Action{Do: AddBridge, Link: Bridge, Address: w.Gateways[0], MTU: w.MTU, Reason: reason})
		} else if h.BridgeMTU != w.MTU {
			reason := "the interface that leads out of this host has this MTU"
			actions = append(actions, Action{Do: SetMTU, Link: Bridge, MTU: w.MTU, Reason: reason})
		}
		for _, a := range h.BridgeAddress {
			if !slices.Contains(w.Gateways, a) {
				reason := "it is not in the node's podCIDR"
				actions = append(actions, Action{Do: RemoveAddress, Link: Bridge, Address: a, Reason: reason})
			}
		}
		for _, a := range w.Gateways {
			if !slices.Contains(h.BridgeAddress, a) {
				reason := "it is the gateway of the node's podCIDR"
				actions = append(actions, Action{Do: AddAddress, Link: Bridge, Address: a, Reason: reason})
			}
		}
	}
	for _, r := range h.Routes {
		if !r.Unreachable && !slices.Contains(w.Routes, r) {
			actions = append(actions, Action{Do: RemoveRoute, Route: r, Reason: "no node has these Pods, or not there"})
		}
	}
	for _, r := range w.Routes {
		if !slices.Contains(h.Routes, r) {
			actions = append(actions, Action{Do: AddRoute, Route: r, Reason: "Pods and Services are reached this way"})
		}
	}
	return actions
}

// planRemoval returns the steps to a host without us.
func planRemoval(dns []netip.Addr, h Host) []Action {
	const reason = "the node is taken down"
	var actions []Action
	for _, p := range h.Ports {
		actions = append(actions, Action{Do: RemoveLink, Link: p, Reason: reason})
	}
	if h.HasBridge {
		actions = append(actions, Action{Do: RemoveLink, Link: Bridge, Reason: reason})
	}
	for _, d := range dns {
		if a := hostPrefix(d); slices.Contains(h.LoopbackAddresses, a) {
			actions = append(actions, Action{Do: RemoveAddress, Link: "lo", Address: a, Reason: reason})
		}
	}
	for _, r := range h.Routes {
		if r.Dev != Bridge || !h.HasBridge { // those of the bridge go with it
			actions = append(actions, Action{Do: RemoveRoute, Route: r, Reason: reason})
		}
	}
	return actions
}

func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func compareRoutes(a, b Route) int {
	return cmp.Or(a.To.Addr().Compare(b.To.Addr()), cmp.Compare(a.To.Bits(), b.To.Bits()),
		a.Via.Compare(b.Via), cmp.Compare(a.Dev, b.Dev))
}
