package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

const (
	// Bridge is the interface that the Pods of a node share. Each Pod has one port of it.
	Bridge = "flyball0"
	// lastMetric puts a route behind every route that somebody else may have to the same network.
	lastMetric = 1 << 30
)

// Node is what the network reads of a Node object. Both fields may be unset, as on a Node that has just joined.
type Node struct {
	Name       string
	PodCIDR    netip.Prefix
	InternalIP netip.Addr
}

// Route is a route of ours, marked with our protocol, or in Host.Foreign somebody else's.
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

// Host is what was observed of the machine.
type Host struct {
	// Addresses of all interfaces, ours not included, by interface. LoopbackAddresses those of lo.
	Addresses         map[string][]netip.Prefix
	LoopbackAddresses []netip.Prefix
	// Foreign are the routes of the main table that are not ours, Routes those that are.
	Foreign, Routes []Route
	// The bridge, if there is one, its address, hardware address, and the interfaces that are its ports.
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
	PodCIDR netip.Prefix // unset as long as the Node has none
	Gateway netip.Prefix // the bridge's own address in it
	MTU     int
	Routes  []Route
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

// conflict returns an error that names the address or route of the host that a CIDR of the cluster overlaps. The default
// route overlaps nothing, nor does a route that leads nowhere.
func conflict(cluster, service netip.Prefix, h Host) error {
	for _, c := range []struct {
		name, option string
		cidr         netip.Prefix
	}{{"cluster CIDR", "clusterCIDR", cluster}, {"Service CIDR", "serviceCIDR", service}} {
		for link, addresses := range h.Addresses {
			for _, a := range addresses {
				if a.Overlaps(c.cidr) {
					return fmt.Errorf("checking the %s %s: it overlaps the host's address %s on %s; set %s to a network that this host does not use", c.name, c.cidr, a, link, c.option)
				}
			}
		}
		for _, r := range h.Foreign {
			if !r.Unreachable && r.To.Bits() > 0 && r.To.Overlaps(c.cidr) {
				return fmt.Errorf("checking the %s %s: it overlaps the host's route %s; set %s to a network that this host does not use", c.name, c.cidr, r, c.option)
			}
		}
	}
	return nil
}

// planBase returns the steps to what a node needs before it is one.
func planBase(cluster, service netip.Prefix, dns netip.Addr, h Host) []Action {
	var actions []Action
	for _, cidr := range []netip.Prefix{cluster, service} {
		r := Route{To: cidr, Unreachable: true, Metric: lastMetric}
		if !slices.Contains(h.Routes, r) {
			actions = append(actions, Action{Do: AddRoute, Route: r, Reason: "packets to a Pod or Service that does not exist must not leave the machine"})
		}
	}
	if a := hostPrefix(dns); dns.IsValid() && !slices.Contains(h.LoopbackAddresses, a) {
		actions = append(actions, Action{Do: AddAddress, Link: "lo", Address: a, Reason: "the cluster's DNS server answers on this address on every node"})
	}
	return actions
}

// want returns the network of the node called self.
func want(self string, cluster, service netip.Prefix, nodes []Node) Wanted {
	var w Wanted
	own := slices.IndexFunc(nodes, func(n Node) bool { return n.Name == self })
	if own < 0 || !usable(nodes[own].PodCIDR, cluster) {
		return w
	}
	w.PodCIDR = nodes[own].PodCIDR
	w.Gateway = netip.PrefixFrom(w.PodCIDR.Addr().Next(), w.PodCIDR.Bits())
	// A process on the host that connects to a Service needs a route before the proxy may translate the address. A
	// packet that it does not translate gets no answer on the bridge.
	w.Routes = append(w.Routes, Route{To: service, Dev: Bridge})
	w.Routes = append(w.Routes, toOthers(nodes[own], cluster, nodes)...)
	slices.SortFunc(w.Routes, compareRoutes)
	return w
}

// toOthers returns the routes to the Pods of the other nodes, each through its node's address. Of two nodes that claim the
// same Pods the first by name gets them; one that claims our own or our address gets none.
func toOthers(self Node, cluster netip.Prefix, nodes []Node) []Route {
	var routes []Route
	nodes = slices.SortedFunc(slices.Values(nodes), func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range nodes {
		taken := func(r Route) bool { return r.To.Overlaps(n.PodCIDR) }
		switch {
		case n.Name == self.Name || !usable(n.PodCIDR, cluster) || n.PodCIDR.Overlaps(self.PodCIDR):
		case !n.InternalIP.IsValid() || n.InternalIP == self.InternalIP || cluster.Contains(n.InternalIP):
		case slices.ContainsFunc(routes, taken):
		default:
			routes = append(routes, Route{To: n.PodCIDR, Via: n.InternalIP})
		}
	}
	return routes
}

// byOthers separates the actions that depend on other nodes from those that this node needs for itself. A node that cannot
// be reached must not keep the Pods of this one from starting.
func byOthers(actions []Action) (own, others []Action) {
	for _, a := range actions {
		if a.Do == AddRoute && a.Route.Via.IsValid() {
			others = append(others, a)
		} else {
			own = append(own, a)
		}
	}
	return own, others
}

// usable reports whether a podCIDR lies in the cluster's and has room for a gateway and a Pod.
func usable(pod, cluster netip.Prefix) bool {
	return pod.IsValid() && pod.Bits() >= cluster.Bits() && pod.Bits() <= 30 && cluster.Contains(pod.Addr())
}

// plan returns the steps to w. It leaves what planBase makes alone.
func plan(w Wanted, h Host) []Action {
	var actions []Action
	if w.PodCIDR.IsValid() {
		if !h.HasBridge || !h.BridgeUp {
			actions = append(actions, Action{Do: AddBridge, Link: Bridge, Address: w.Gateway, MTU: w.MTU, Reason: "the Pods of this node share it"})
		} else if h.BridgeMTU != w.MTU {
			actions = append(actions, Action{Do: SetMTU, Link: Bridge, MTU: w.MTU, Reason: "the interface that leads out of this machine has this MTU"})
		}
		for _, a := range h.BridgeAddress {
			if a != w.Gateway {
				actions = append(actions, Action{Do: RemoveAddress, Link: Bridge, Address: a, Reason: "it is not in the node's podCIDR"})
			}
		}
		if !slices.Contains(h.BridgeAddress, w.Gateway) {
			actions = append(actions, Action{Do: AddAddress, Link: Bridge, Address: w.Gateway, Reason: "it is the gateway of the node's podCIDR"})
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

// planRemoval returns the steps to a machine without us.
func planRemoval(dns netip.Addr, h Host) []Action {
	const reason = "the node is taken down"
	var actions []Action
	for _, p := range h.Ports {
		actions = append(actions, Action{Do: RemoveLink, Link: p, Reason: reason})
	}
	if h.HasBridge {
		actions = append(actions, Action{Do: RemoveLink, Link: Bridge, Reason: reason})
	}
	if a := hostPrefix(dns); dns.IsValid() && slices.Contains(h.LoopbackAddresses, a) {
		actions = append(actions, Action{Do: RemoveAddress, Link: "lo", Address: a, Reason: reason})
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
	return cmp.Or(a.To.Addr().Compare(b.To.Addr()), cmp.Compare(a.To.Bits(), b.To.Bits()), a.Via.Compare(b.Via), cmp.Compare(a.Dev, b.Dev))
}
