package proxy

import (
	"net/netip"
	"slices"
	"strings"
)

// PlanService says what a Service wants in the table. nodeIPs are this host's addresses. The State
// is asked for class numbers only.
func (s *State) PlanService(svc Service, nodeIPs []netip.Addr) Desired {
	var d Desired
	for i := range svc.Ports {
		d.addPort(s, &svc.Ports[i], nodeIPs)
	}
	return d
}

func (d *Desired) addPort(s *State, p *ServicePort, nodeIPs []netip.Addr) {
	c := choose(p.Endpoints)
	at := Key{Protocol: p.Protocol, Port: p.Port, Addr: toIP(p.ClusterIP)}
	d.addFrontend(s, at, internalClass(p, c), c)

	class := externalClass(p, c)
	for _, addr := range p.ExternalIPs {
		if !slices.Contains(p.LoadBalancerIPs, addr) {
			at.Addr = toIP(addr)
			d.addFrontend(s, at, class, c)
		}
	}
	for _, addr := range p.LoadBalancerIPs {
		at.Addr = toIP(addr)
		restricted := class
		if class.Action != Reject {
			restricted.Sources = sources(p, nodeIPs)
		}
		d.addFrontend(s, at, restricted, c)
	}
	if p.NodePort != 0 {
		at.Addr, at.Port = ip{}, p.NodePort
		class.Via = ViaNodePort
		d.addFrontend(s, at, class, c)
	}
	for _, e := range p.Endpoints {
		if e.Local && (e.Ready || e.Serving) {
			d.add(Key{Map: Hairpin, Addr: toIP(e.Addr.Addr())}, Value{})
		}
	}
	if p.Protocol == UDP {
		d.addFlows(p)
	}
}

// addFrontend adds an address of the port, with the endpoints of the lists that its class reads.
func (d *Desired) addFrontend(s *State, at Key, class Class, c choice) {
	at.Map = Frontends
	if class.Action == Reject {
		class = Class{Action: Reject}
	}
	d.add(at, Value{Class: s.class(class)})
	if class.Shortcut > 0 || class.Action == Balance && class.List == Cluster {
		d.addEndpoints(at, Cluster, c.Cluster, class.Sticky > 0)
	}
	if class.Action == Balance && class.List == Local {
		d.addEndpoints(at, Local, c.Local, class.Sticky > 0)
	}
}

func internalClass(p *ServicePort, c choice) Class {
	class := Class{Masquerade: Outside, Count: len(c.Cluster), Sticky: p.Affinity, Endpoints: stickTo(p, c.Cluster)}
	switch {
	case !c.Any:
		return Class{Action: Reject}
	case !p.InternalLocal:
		return class
	case len(c.Local) == 0:
		return Class{Action: Drop}
	}
	class.List, class.Count, class.Endpoints = Local, len(c.Local), stickTo(p, c.Local)
	return class
}

func externalClass(p *ServicePort, c choice) Class {
	class := Class{Masquerade: Always, Count: len(c.Cluster), Sticky: p.Affinity, Endpoints: stickTo(p, c.Cluster)}
	switch {
	case !c.Any:
		return Class{Action: Reject}
	case !p.ExternalLocal:
		return class
	}
	// The endpoint is on this node: the client's address can be kept.
	class.Masquerade, class.List, class.Count, class.Shortcut = Never, Local, len(c.Local), len(c.Cluster)
	class.Endpoints, class.ShortcutEndpoints = stickTo(p, c.Local), stickTo(p, c.Cluster)
	if class.Count == 0 {
		class.Action = Drop
	}
	return class
}

// stickTo names the endpoints that clients stick to.
func stickTo(p *ServicePort, addrs []netip.AddrPort) string {
	if p.Affinity == 0 {
		return ""
	}
	text := make([]string, len(addrs))
	for i, a := range addrs {
		text[i] = a.String()
	}
	return strings.Join(text, ",")
}

// sources are those that may use the load balancer's addresses. A node that may speaks to such an
// address with that very address as its own, where the load balancer's agent has put it on an
// interface.
func sources(p *ServicePort, nodeIPs []netip.Addr) string {
	var list []string
	fromNode := false
	for _, r := range p.SourceRanges {
		list = append(list, r.Masked().String())
		fromNode = fromNode || slices.ContainsFunc(nodeIPs, r.Contains)
	}
	if fromNode {
		for _, a := range p.LoadBalancerIPs {
			list = append(list, netip.PrefixFrom(a, a.BitLen()).String())
		}
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}

func (d *Desired) addEndpoints(at Key, list List, addrs []netip.AddrPort, sticky bool) {
	at.Map = Endpoints
	for i, a := range addrs {
		at.Index = list.first() + uint32(i)
		d.add(at, Value{Addr: toIP(a.Addr()), Port: a.Port(), Sticky: sticky})
	}
}

func (d *Desired) addFlows(p *ServicePort) {
	endpoints := serving(p.Endpoints)
	for _, addr := range slices.Concat([]netip.Addr{p.ClusterIP}, p.ExternalIPs, p.LoadBalancerIPs) {
		d.Flows = append(d.Flows, Flow{toIP(addr), p.Port, endpoints})
	}
	if p.NodePort != 0 {
		d.Flows = append(d.Flows, Flow{Port: p.NodePort, Endpoints: endpoints})
	}
}

func (d *Desired) add(k Key, v Value) { d.Elements = append(d.Elements, Element{k, v}) }

// HostPortPod is what the proxy needs to know of one of this node's Pods.
type HostPortPod struct {
	Name  string // namespace/name
	Addr  netip.Addr
	Ports []HostPortMapping
}

// HostPortMapping is a port of the host that leads to a port of a Pod.
type HostPortMapping struct {
	HostIP                  netip.Addr // unspecified: every address of the host
	Protocol                Protocol
	HostPort, ContainerPort uint16
}

// PlanPod says what a Pod with host ports wants in the table. The source address is kept, except
// where the Pod reaches itself (Hairpin) and where it is a loopback address, which a rule sees to.
func PlanPod(pod HostPortPod) Desired {
	var d Desired
	for _, p := range pod.Ports {
		addr := toIP(p.HostIP)
		d.add(Key{Map: HostPorts, Protocol: p.Protocol, Port: p.HostPort, Addr: addr},
			Value{Addr: toIP(pod.Addr), Port: p.ContainerPort})
		if p.Protocol == UDP {
			backend := netip.AddrPortFrom(pod.Addr, p.ContainerPort)
			d.Flows = append(d.Flows, Flow{addr, p.HostPort, []netip.AddrPort{backend}})
		}
	}
	if len(pod.Ports) > 0 {
		d.add(Key{Map: Hairpin, Addr: toIP(pod.Addr)}, Value{})
	}
	return d
}
