package proxy

import (
	"net/netip"
	"slices"
)

// Service is what the proxy needs to know of one Service and its EndpointSlices.
type Service struct {
	Name  string // namespace/name
	Ports []ServicePort

	// HealthCheckNodePort is the port on which load balancers ask whether this node has endpoints;
	// 0: none.
	HealthCheckNodePort uint16
}

// ServicePort is one port of a Service, with the endpoints behind it.
type ServicePort struct {
	ClusterIP       netip.Addr
	Protocol        Protocol
	Port, NodePort  uint16
	ExternalIPs     []netip.Addr
	LoadBalancerIPs []netip.Addr

	// SourceRanges limits who may use LoadBalancerIPs; empty: everybody.
	SourceRanges []netip.Prefix

	// InternalLocal and ExternalLocal are the traffic policies of that name.
	InternalLocal, ExternalLocal bool

	// Affinity is ClientIP session affinity in seconds; 0: none.
	Affinity uint32

	Endpoints []Endpoint
}

// Endpoint is one address behind a Service port, with the conditions that its EndpointSlice
// reports.
type Endpoint struct {
	Addr                        netip.AddrPort
	Local                       bool // on this node
	Ready, Serving, Terminating bool
	Hints                       [2]Hint // for nodes, for zones
}

// Hint says whom an endpoint is meant for: the EndpointSlice controller spreads traffic by hints if
// the Service asks for it in spec.trafficDistribution (KEP-4444, KEP-3015) or by annotation
// (KEP-2433).
type Hint uint8

// There is no hint, or there are some, for others only or for this node or its zone.
const (
	NoHint Hint = iota
	ForOthers
	ForUs
)

// choice is what choose decides: the endpoints that traffic may go to under each traffic policy,
// sorted, and whether there are any in the cluster.
type choice struct {
	Cluster, Local []netip.AddrPort
	Any            bool
}

// choose picks a port's usable endpoints: the ready ones; if there are none, those that still serve
// while they terminate (KEP-1669). The two policies fall back independently. Hints narrow Cluster,
// as long as there are ready ones.
func choose(endpoints []Endpoint) choice {
	c := choice{
		Cluster: usable(endpoints, hinted(endpoints)),
		Local:   usable(endpoints, func(e Endpoint) bool { return e.Local }),
	}
	c.Any = len(c.Cluster) > 0
	return c
}

// hinted finds the ready endpoints that are meant for this node, or else for its zone. Hints count
// only if every ready endpoint has one and one at least is for us; otherwise all are meant.
func hinted(endpoints []Endpoint) func(Endpoint) bool {
	for i := range len(Endpoint{}.Hints) {
		least, most := ForUs, NoHint
		for _, e := range endpoints {
			if e.Ready {
				least, most = min(least, e.Hints[i]), max(most, e.Hints[i])
			}
		}
		if least > NoHint && most == ForUs {
			return func(e Endpoint) bool { return e.Hints[i] == ForUs }
		}
	}
	return func(Endpoint) bool { return true }
}

func usable(endpoints []Endpoint, reachable func(Endpoint) bool) []netip.AddrPort {
	var ready, draining []netip.AddrPort
	for _, e := range endpoints {
		switch {
		case !reachable(e):
		case e.Ready:
			ready = append(ready, e.Addr)
		case e.Serving && e.Terminating:
			draining = append(draining, e.Addr)
		}
	}
	if len(ready) == 0 {
		ready = draining
	}
	return sorted(ready)
}

// serving lists every endpoint that may still answer: what conntrack entries may point at.
func serving(endpoints []Endpoint) []netip.AddrPort {
	var all []netip.AddrPort
	for _, e := range endpoints {
		if e.Serving || e.Ready {
			all = append(all, e.Addr)
		}
	}
	return sorted(all)
}

// sorted sorts a list in place and drops what is in it twice.
func sorted(list []netip.AddrPort) []netip.AddrPort {
	slices.SortFunc(list, netip.AddrPort.Compare)
	return slices.Compact(list)
}

// localReady counts the Pods of this node that are ready behind any port.
func (s *Service) localReady() int {
	addrs := map[netip.Addr]bool{}
	for _, p := range s.Ports {
		for _, e := range p.Endpoints {
			if e.Local && e.Ready {
				addrs[e.Addr.Addr()] = true
			}
		}
	}
	return len(addrs)
}
