package proxy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"strings"
	"time"

	"flyball.dev/nft"
)

// Class is what happens to the traffic to an address of a Service. Addresses with the same
// treatment share a class, and a class is one chain.
type Class struct {
	Via    Via
	Action Action

	// Masquerade decides for which sources the node's address replaces the source address.
	Masquerade Masquerade

	// List and Count are the endpoints to choose from.
	List  List
	Count int

	// Sticky is the session affinity in seconds; 0: none. With Sticky, Endpoints lists the
	// endpoints that clients stick to, with commas: such a class has one member only.
	Sticky    uint32
	Endpoints string

	// Shortcut is the number of endpoints in the whole cluster, which Pods and this host may use at
	// an address whose externalTrafficPolicy is Local. With Sticky, ShortcutEndpoints lists them.
	Shortcut          int
	ShortcutEndpoints string

	// Sources lists who may use the address, as CIDRs with commas; empty: everybody.
	Sources string
}

// Via is the part of a packet's destination that is the key of a frontend.
type Via uint8

// An address with a port, or the port alone.
const (
	ViaAddress Via = iota
	ViaNodePort
)

// Action is what happens to a connection.
type Action uint8

// Balance sends a connection to an endpoint. Reject answers that the port is unreachable, for
// Services without endpoints. Drop is for traffic policy Local on a node without endpoints, where
// load balancers are expected to use another node.
const (
	Balance Action = iota
	Reject
	Drop
)

// Masquerade decides for which sources the node's address replaces the source address.
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

// needs lists the classes whose chains are the targets of this class's chain.
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

// rules returns the rules of the class's chain. Without clusterCIDRs no source counts as a Pod.
func (c Class) rules(f *family, clusterCIDRs []netip.Prefix) []nft.Rule {
	if c.Sources != "" {
		return c.restrict()
	}
	inside := f.only(clusterCIDRs)
	var rules []nft.Rule
	switch {
	case c.Masquerade == Outside && len(inside) > 0:
		var outside []nft.Statement
		for _, cidr := range inside {
			outside = append(outside, nft.Not(nft.SourceIn(cidr)))
		}
		rules = append(rules, nft.R(append(outside, markForMasquerade)...))
	case c.Masquerade == Always:
		rules = append(rules, nft.R(markForMasquerade))
	}
	if c.Shortcut > 0 {
		// As if the packet had gone out to a load balancer and come back in: a client inside the
		// cluster reaches the endpoints of all nodes.
		short := nft.GoTo(c.shortcut().chain())
		for _, cidr := range inside {
			rules = append(rules, nft.R(nft.SourceIn(cidr), short))
		}
		rules = append(rules,
			nft.R(nft.IsLocal(nft.SourceType), markForMasquerade),
			nft.R(nft.IsLocal(nft.SourceType), short))
	}
	if c.Action == Drop {
		return append(rules, nft.R(drop))
	}
	return append(rules, c.pick(f)...)
}

// restrict lets the listed sources pass on to the class without restrictions.
func (c Class) restrict() []nft.Rule {
	var rules []nft.Rule
	for s := range strings.SplitSeq(c.Sources, ",") {
		if p, err := netip.ParsePrefix(s); err == nil {
			rules = append(rules, nft.R(nft.SourceIn(p), nft.GoTo(c.needs()[0].chain())))
		}
	}
	return append(rules, nft.R(drop))
}

// key returns the operands of the frontend that a packet is for, followed by more.
func (v Via) key(f *family, more ...nft.Operand) nft.Key {
	addr := nft.Of(f.daddr)
	if v == ViaNodePort {
		addr = nft.Constant(nft.Data(f.append(nil, ip{})))
	}
	k := nft.Key{addr, nft.Of(nft.L4Proto), nft.Of(nft.Dport)}
	copy(k[3:], more)
	return k
}

// pick sends the connection to an endpoint.
func (c Class) pick(f *family) []nft.Rule {
	one := func(index nft.Operand) nft.Rule {
		return nft.R(nft.DNAT{Family: f.Family, Key: c.Via.key(f, index), Map: Endpoints.String()})
	}
	first := nft.Constant(nft.Number(c.List.first()))
	var rules []nft.Rule
	if c.Sticky > 0 {
		rules = c.stick(f)
	}
	if c.Count > 1 {
		rules = append(rules, one(nft.Random(uint32(c.Count), c.List.first())))
		// The number of endpoints may shrink between two lookups of one packet: then the packet
		// goes to the first endpoint.
	}
	return append(rules, one(first))
}

// stick sends known clients to their last endpoint, and other clients to any. Either way the client
// stays with that endpoint for the time of the affinity from now on.
func (c Class) stick(f *family) []nft.Rule {
	set := clients(f).Name
	var known, others []nft.Rule
	endpoints := strings.Split(c.Endpoints, ",")
	for i, e := range endpoints {
		to, _ := netip.ParseAddrPort(e) // we wrote it
		key := nft.Key{nft.Of(f.saddr)}
		at := c.Via.key(f, nft.Constant(nft.Number(bindingHash(c.List, to))))
		copy(key[1:], at[:])
		// If the set is full, Update does not match. The last rule of the chain then serves the
		// client without affinity.
		send := []nft.Statement{
			nft.Update{Key: key, Set: set, Timeout: time.Duration(c.Sticky) * time.Second},
			nft.DNAT{Family: f.Family, To: to},
		}
		known = append(known, nft.R(append([]nft.Statement{nft.In{Key: key, Set: set}}, send...)...))
		if odds := len(endpoints) - i; odds > 1 {
			send = append([]nft.Statement{nft.OneIn(uint32(odds))}, send...)
		}
		others = append(others, nft.R(send...))
	}
	return append(known, others...)
}

// bindingHash stands for an endpoint of a list in the set of known clients, whose key has no space
// for another address. If two were equal, their clients could change between the two endpoints.
func bindingHash(list List, endpoint netip.AddrPort) uint32 {
	h := fnv.New32a()
	h.Write([]byte(list.String() + " " + endpoint.String()))
	return h.Sum32()
}
