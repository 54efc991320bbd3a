package proxy

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Desired is what one owner, a Service or a Pod, wants in the table.
type Desired struct {
	Elements []Element
	Flows    []Flow
}

// Flow is a UDP frontend and the endpoints that its conntrack entries may point at. A UDP
// connection has no end, so an entry lives as long as its client keeps sending, also to an endpoint
// that is gone.
type Flow struct {
	Addr      ip // zero: any address of this host
	Port      uint16
	Endpoints []netip.AddrPort
}

// Change is what has to be done to the kernel: the classes in one transaction, the elements in the
// next.
type Change struct {
	Classes     []Member // to create, in this order
	Delete, Add []Element
	Unbind      []Element // endpoints that a frontend lost: no client may be sent back to them
	Stale       []Flow    // conntrack entries of these frontends are to be checked
	Owners      []string  // the Services and Pods that changed
}

// Member is a class and its number in the map of classes.
type Member struct {
	Class  Class
	Number uint32
}

// Empty reports that the kernel is as it should be.
func (c Change) Empty() bool { return len(c.Classes)+len(c.Delete)+len(c.Add)+len(c.Stale) == 0 }

// State is what was last planned for the kernel. It is not safe for concurrent use. Set records
// what an owner wants, and Take returns the difference that all Sets since the last Take make. Its
// cost depends on the owners that changed, not on the number of the others.
type State struct {
	owners map[string]Desired
	held   map[Key]claim
	rivals map[Key]map[string]Value // of keys that several owners want: the first by name holds it

	classes map[Class]uint32
	last    uint32

	before map[Key]before // touched since the last Take
	fresh  []Member
	stale  map[frontend][]netip.AddrPort
	names  map[string]bool
}

type claim struct {
	owner string
	value Value
}

type before struct {
	value   Value
	existed bool
}

// NewState is the state of an empty table.
func NewState() *State {
	s := &State{
		owners: map[string]Desired{}, held: map[Key]claim{}, rivals: map[Key]map[string]Value{},
		classes: map[Class]uint32{},
	}
	s.reset()
	return s
}

func (s *State) reset() {
	s.before, s.stale, s.names, s.fresh = map[Key]before{}, map[frontend][]netip.AddrPort{}, map[string]bool{}, nil
}

// Set records what an owner wants; nothing, if it is gone.
func (s *State) Set(owner string, want Desired) {
	had := s.owners[owner]
	wanted := make(map[Key]Value, len(want.Elements))
	for _, e := range want.Elements {
		wanted[e.Key] = e.Value
	}
	for _, e := range had.Elements {
		if _, ok := wanted[e.Key]; !ok {
			s.release(e.Key, owner)
		}
	}
	for k, v := range wanted {
		s.claim(k, claim{owner, v})
	}
	s.setFlows(had.Flows, want.Flows)
	if len(want.Elements)+len(want.Flows) == 0 {
		delete(s.owners, owner)
	} else {
		s.owners[owner] = want
	}
	s.names[owner] = true
}

// setFlows records frontends whose conntrack entries may have become stale: those that lost an
// endpoint, or got their first.
func (s *State) setFlows(had, want []Flow) {
	old := map[frontend][]netip.AddrPort{}
	for _, f := range had {
		old[frontend{f.Addr, UDP, f.Port}] = f.Endpoints
	}
	for _, f := range want {
		k := frontend{f.Addr, UDP, f.Port}
		was, known := old[k]
		_, pending := s.stale[k]
		gone := slices.ContainsFunc(was, func(a netip.AddrPort) bool { return !slices.Contains(f.Endpoints, a) })
		if pending || !known || gone || len(was) == 0 && len(f.Endpoints) > 0 {
			s.stale[k] = f.Endpoints
		}
		delete(old, k)
	}
	for k := range old {
		s.stale[k] = nil
	}
}

func (s *State) claim(k Key, c claim) {
	held, ok := s.held[k]
	switch {
	case ok && held.owner < c.owner:
		s.enlist(k, c)
	case ok && held.owner > c.owner:
		s.delist(k, c.owner)
		s.enlist(k, held)
		s.hold(k, c)
	default:
		s.hold(k, c)
	}
}

func (s *State) release(k Key, owner string) {
	switch held := s.held[k]; {
	case held.owner != owner:
		s.delist(k, owner)
	case len(s.rivals[k]) > 0:
		next := slices.Min(slices.Collect(maps.Keys(s.rivals[k])))
		s.hold(k, claim{next, s.rivals[k][next]})
		s.delist(k, next)
	default:
		s.touch(k)
		delete(s.held, k)
	}
}

func (s *State) hold(k Key, c claim) {
	if held, ok := s.held[k]; !ok || held.value != c.value {
		s.touch(k)
	}
	s.held[k] = c
}

func (s *State) enlist(k Key, c claim) {
	if s.rivals[k] == nil {
		s.rivals[k] = map[string]Value{}
	}
	s.rivals[k][c.owner] = c.value
}

func (s *State) delist(k Key, owner string) {
	if delete(s.rivals[k], owner); len(s.rivals[k]) == 0 {
		delete(s.rivals, k)
	}
}

func (s *State) touch(k Key) {
	if _, ok := s.before[k]; !ok {
		held, existed := s.held[k]
		s.before[k] = before{held.value, existed}
	}
}

// class is the number of a class, which is created if it is new, after those that it goes on to.
func (s *State) class(c Class) uint32 {
	if n, ok := s.classes[c]; ok {
		return n
	}
	for _, inner := range c.needs() {
		s.class(inner)
	}
	s.last++
	s.classes[c] = s.last
	s.fresh = append(s.fresh, Member{c, s.last})
	return s.last
}

// Take returns the change from what the last Take returned to what is wanted now.
func (s *State) Take() Change {
	c := Change{Classes: s.fresh, Stale: s.flows(), Owners: slices.Sorted(maps.Keys(s.names))}
	for k, b := range s.before {
		held, exists := s.held[k]
		if b.existed == exists && b.value == held.value {
			continue
		}
		if b.existed {
			c.Delete = append(c.Delete, Element{k, b.value})
		}
		if exists {
			c.Add = append(c.Add, Element{k, held.value})
		}
	}
	slices.SortFunc(c.Delete, compareElements)
	slices.SortFunc(c.Add, compareElements)
	c.Unbind = unbound(c.Delete, c.Add)
	s.reset()
	return c
}

// unbound lists what clients were bound to and is gone. An endpoint that only moves within its list
// is not.
func unbound(deleted, added []Element) []Element {
	gone := map[Element]bool{}
	for _, e := range deleted {
		if e.Sticky {
			gone[e.bond()] = true
		}
	}
	for _, e := range added {
		delete(gone, e.bond())
	}
	return slices.SortedFunc(maps.Keys(gone), compareElements)
}

// Failed records again what a change that was not written contains and All does not: the conntrack
// entries of frontends that are gone.
func (s *State) Failed(c Change) {
	for _, f := range c.Stale {
		s.stale[frontend{f.Addr, UDP, f.Port}] = f.Endpoints
	}
}

// Count returns how many elements each map has.
func (s *State) Count() [mapCount]int {
	var n [mapCount]int
	for k := range s.held {
		n[k.Map]++
	}
	return n
}

// All returns the change from no table at all. It forgets the classes that no element uses any
// more.
func (s *State) All() Change {
	used := map[uint32]bool{}
	c := Change{Owners: []string{"all"}}
	for k, held := range s.held {
		used[held.value.Class] = true
		c.Add = append(c.Add, Element{k, held.value})
	}
	slices.SortFunc(c.Add, compareElements)
	c.Classes = s.compact(used)
	for _, d := range s.owners {
		s.setFlows(nil, d.Flows)
	}
	c.Stale = s.flows()
	s.reset()
	return c
}

func (s *State) compact(used map[uint32]bool) []Member {
	// Contenders do not stand in the table, but may one day without being planned again.
	for _, list := range s.rivals {
		for _, value := range list {
			used[value.Class] = true
		}
	}
	members := make([]Member, 0, len(s.classes))
	for c, n := range s.classes {
		members = append(members, Member{c, n})
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(b.Number, a.Number) })
	kept := members[:0]
	for _, m := range members { // a class precedes those that go on to it, which are checked first
		if !used[m.Number] {
			delete(s.classes, m.Class)
			continue
		}
		for _, inner := range m.Class.needs() {
			used[s.classes[inner]] = true
		}
		kept = append(kept, m)
	}
	slices.Reverse(kept)
	return kept
}

func (s *State) flows() []Flow {
	var flows []Flow
	for k, endpoints := range s.stale {
		flows = append(flows, Flow{k.addr, k.port, endpoints})
	}
	slices.SortFunc(flows, func(a, b Flow) int {
		return cmp.Or(bytes.Compare(a.Addr[:], b.Addr[:]), cmp.Compare(a.Port, b.Port))
	})
	return flows
}
