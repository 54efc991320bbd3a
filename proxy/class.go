package proxy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
)

// Class is how the traffic to one address of a Service is treated. Addresses that are treated alike
// share a class, and a class is one chain.
type Class struct {
	Via    Via
	Action Action

	// Masquerade says whose source address is replaced by the node's.
	Masquerade Masquerade

	// List and Count are the endpoints to choose from.
	List  List
	Count int

	// Sticky is the session affinity in seconds; 0: none. Then Endpoints lists what clients stick
	// to, with commas: such a class has one member only.
	Sticky    uint32
	Endpoints string

	// Shortcut is the number of endpoints in the whole cluster, which Pods and this host may use at
	// an address whose externalTrafficPolicy is Local. With Sticky, ShortcutEndpoints lists them.
	Shortcut          int
	ShortcutEndpoints string

	// Sources lists who may use the address, as CIDRs with commas; empty: everybody.
	Sources string
}

// Via is what of a packet's destination is the key of a frontend.
type Via uint8

// An address with a port, or the port alone.
const (
	ViaAddress Via = iota
	ViaNodePort
)

// Action is what happens to a connection.
type Action uint8

// Balance sends it to an endpoint. Reject answers that nobody is there, for Services without
// endpoints. Drop is for traffic policy Local on a node without endpoints, where load balancers are
// expected to go elsewhere.
const (
	Balance Action = iota
	Reject
	Drop
)

// Masquerade says whose source address is replaced by the node's.
type Masquerade uint8

// Never, always, or for sources outside the cluster CIDR only.
const (
	Never Masquerade = iota
	Outside
	Always
)

// List is one of the two lists of endpoints that a Service port may have.
type List uint8

// The lists of the traffic policies Cluster and Local.
const (
	Cluster List = iota
	Local
)

// localIndex is where the list Local begins among the indexes of `endpoints`.
const localIndex = 1 << 16

func (l List) first() uint32  { return uint32(l) * localIndex }
func (l List) String() string { return [...]string{"cluster", "local"}[l] }
func (v Via) String() string  { return [...]string{"address", "node-port"}[v] }

// chain names the chain of the class. Equal classes have equal names, so that a listing of the
// table can be read.
func (c Class) chain() string {
	switch c.Action {
	case Reject:
		return rejectChain
	case Drop:
		if c.Shortcut == 0 {
			return dropChain
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s-%s-%d", c.Via, c.List, c.Count)
	b.WriteString([...]string{"", "-outside", "-masquerade"}[c.Masquerade])
	if c.Sticky > 0 {
		fmt.Fprintf(&b, "-sticky-%d", c.Sticky)
	}
	if c.Shortcut > 0 {
		fmt.Fprintf(&b, "-shortcut-%d", c.Shortcut)
	}
	if c.Sources != "" {
		b.WriteString("-restricted")
	}
	if lists := c.Endpoints + c.ShortcutEndpoints + c.Sources; lists != "" {
		h := fnv.New64a()
		fmt.Fprintf(h, "%s|%s|%s", c.Endpoints, c.ShortcutEndpoints, c.Sources)
		fmt.Fprintf(&b, "-%016x", h.Sum64())
	}
	return b.String()
}

// needs lists the classes whose chains this one's chain goes on to.
func (c Class) needs() []Class {
	switch {
	case c.Sources != "":
		c.Sources = ""
		return []Class{c}
	case c.Shortcut > 0:
		return []Class{c.shortcut()}
	}
	return nil
}

func (c Class) shortcut() Class {
	return Class{Via: c.Via, List: Cluster, Count: c.Shortcut, Sticky: c.Sticky, Endpoints: c.ShortcutEndpoints}
}

// rules compiles the class into the rules of its chain.
func (c Class) rules(clusterCIDR netip.Prefix) []Rule {
	if c.Sources != "" {
		return c.restrict()
	}
	var rules []Rule
	switch c.Masquerade {
	case Outside:
		if clusterCIDR.IsValid() {
			rules = append(rules, Rule{sourceIn{clusterCIDR, true}, markForMasquerade{}})
		}
	case Always:
		rules = append(rules, Rule{markForMasquerade{}})
	}
	if c.Shortcut > 0 {
		// As if the packet had gone out to a load balancer and come back in: whoever is inside the
		// cluster already need not care where endpoints are.
		short := verdict{toGoto, c.shortcut().chain()}
		if clusterCIDR.IsValid() {
			rules = append(rules, Rule{sourceIn{clusterCIDR, false}, short})
		}
		rules = append(rules,
			Rule{isLocal{source: true}, markForMasquerade{}},
			Rule{isLocal{source: true}, short})
	}
	if c.Action == Drop {
		return append(rules, Rule{verdict{to: toDrop}})
	}
	return append(rules, c.pick()...)
}

// restrict lets the listed sources pass on to the class without restrictions.
func (c Class) restrict() []Rule {
	var rules []Rule
	for s := range strings.SplitSeq(c.Sources, ",") {
		if p, err := netip.ParsePrefix(s); err == nil {
			rules = append(rules, Rule{sourceIn{p, false}, verdict{toGoto, c.needs()[0].chain()}})
		}
	}
	return append(rules, Rule{verdict{to: toDrop}})
}

// pick sends the connection to an endpoint.
func (c Class) pick() []Rule {
	var rules []Rule
	if c.Sticky > 0 {
		rules = c.stick()
	}
	rules = append(rules, Rule{pick{c.Via, c.List, c.Count}})
	if c.Count > 1 {
		// The number of endpoints shrank between two lookups of one packet.
		rules = append(rules, Rule{pick{c.Via, c.List, 1}})
	}
	return rules
}

// stick sends known clients where they were, and others anywhere.
func (c Class) stick() []Rule {
	var known, others []Rule
	endpoints := strings.Split(c.Endpoints, ",")
	for i, e := range endpoints {
		s := stick{via: c.Via, list: c.List, known: true, odds: len(endpoints) - i, seconds: c.Sticky}
		s.to, _ = netip.ParseAddrPort(e) // we wrote it
		known = append(known, Rule{s})
		s.known = false
		others = append(others, Rule{s})
	}
	return append(known, others...)
}

// hasChain tells whether the class has a chain of its own; the others share the fixed ones.
func (c Class) hasChain() bool { return c.chain() != rejectChain && c.chain() != dropChain }
