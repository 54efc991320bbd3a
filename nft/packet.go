package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Packet is a packet for a Fake. Its family is that of its addresses.
type Packet struct {
	// In is the interface by which it comes in; "" if the host itself sends it. Out is the
	// interface by which it leaves.
	In, Out string
	// Source and Destination; the ports count only for protocols that have ports.
	Source, Destination netip.AddrPort
	Protocol            uint8
	// State is the connection's state; 0 means StateNew. Mark is the packet's. Translated is set if
	// an earlier packet of the connection got another destination.
	State, Mark uint32
	Translated  bool
}

// Outcome is what the rules do with a packet.
type Outcome struct {
	// Verdict is Accept or Drop. Rejected packets are dropped and answered.
	Verdict  Kind
	Rejected bool
	// Destination is where the packet goes; Masqueraded is set if its source becomes an address of
	// the host.
	Destination netip.AddrPort
	Masqueraded bool
	Mark        uint32
	// Trace lists the rules that matched, in order, each with its chain in front.
	Trace []string
}

// Send evaluates a packet: it passes the hooks on its way, and at each the base chains of all
// tables in the order of their priorities. NAT chains see it if its connection is new. A packet
// with a local destination, after translation, is for the host, any other one is forwarded.
func (f *Fake) Send(p Packet) Outcome {
	f.mu.Lock()
	defer f.mu.Unlock()
	p.State = cmp.Or(p.State, StateNew)
	w := &walk{fake: f, packet: p, out: Outcome{Verdict: Accept}}
	if p.In == "" {
		w.hooks(Output, Postrouting)
	} else if w.hooks(Prerouting); w.out.Verdict == Accept {
		if f.isLocal(w.packet.Destination.Addr()) {
			w.hooks(Input)
		} else {
			w.hooks(Forward, Postrouting)
		}
	}
	w.out.Destination, w.out.Mark = w.packet.Destination, w.packet.Mark
	return w.out
}

func (f *Fake) isLocal(a netip.Addr) bool { return a.IsLoopback() || slices.Contains(f.Local, a) }

// walk is the state of a packet on its way through the hooks.
type walk struct {
	fake   *Fake
	packet Packet
	out    Outcome
	hook   Hook
	nat    bool // this hook has translated it
	table  *Table
	chains map[string]Chain
}

type hooked struct {
	table *Table
	chain Chain
}

func (w *walk) hooks(hooks ...Hook) {
	for _, h := range hooks {
		w.hook, w.nat = h, false
		var chains []hooked
		for _, t := range w.fake.tables {
			for _, c := range t.Chains {
				if c.Hook == h && (t.Family == Inet || t.Family == w.family()) {
					chains = append(chains, hooked{t, c})
				}
			}
		}
		slices.SortFunc(chains, func(a, b hooked) int {
			return cmp.Or(cmp.Compare(a.chain.Priority, b.chain.Priority), cmp.Compare(a.table.Name, b.table.Name),
				cmp.Compare(a.chain.Name, b.chain.Name))
		})
		for _, c := range chains {
			if c.chain.Type == NAT && (w.packet.State != StateNew || w.nat) {
				continue
			}
			w.table, w.chains = c.table, chainsByName(*c.table)
			verdict := w.run(c.chain.Name).Kind
			if verdict == Drop || verdict == Continue && c.chain.DropByDefault {
				w.out.Verdict = Drop
				return
			}
		}
	}
}

func (w *walk) family() Family {
	if w.packet.Destination.Addr().Is4() {
		return IPv4
	}
	return IPv6
}

// run passes a packet through a chain and those that it leads to. The verdict is Accept, Drop, or
// Continue at the end of the chain.
func (w *walk) run(chain string) Verdict {
	for _, r := range w.chains[chain].Rules {
		v := w.rule(chain, r)
		switch v.Kind {
		case Accept, Drop:
			return v
		case Return:
			return Verdict{Kind: Continue}
		case Goto:
			return w.run(v.Chain)
		case Jump:
			if v = w.run(v.Chain); v.Kind != Continue {
				return v
			}
		}
	}
	return Verdict{Kind: Continue}
}

// rule evaluates the statements of a rule until one does not match or decides.
func (w *walk) rule(chain string, r Rule) Verdict {
	for _, s := range r.Statements {
		v, matched := w.statement(s)
		if !matched {
			return Verdict{Kind: Continue}
		}
		if v.Kind != noVerdict {
			w.out.Trace = append(w.out.Trace, chain+": "+r.String())
			return v
		}
	}
	w.out.Trace = append(w.out.Trace, chain+": "+r.String())
	return Verdict{Kind: Continue}
}

func (w *walk) statement(s Statement) (v Verdict, matched bool) {
	switch s := s.(type) {
	case Match:
		return Verdict{}, w.match(s)
	case In:
		_, found := w.find(s.Set, s.Key)
		return Verdict{}, found != s.Not
	case Dispatch:
		e, found := w.find(s.Map, s.Key)
		return e.Verdict, found
	case DNAT:
		return w.translate(s)
	case Masquerade:
		w.out.Masqueraded, w.nat = true, true
		return Verdict{Kind: Accept}, true
	case SetMark:
		w.packet.Mark = w.packet.Mark&s.And ^ s.Xor
	case Update:
		return Verdict{}, w.update(s)
	case Reject:
		w.out.Rejected = true
		return Verdict{Kind: Drop}, true
	case Verdict:
		return s, true
	case Counter:
	case Other:
		return Verdict{}, !strings.HasPrefix(s.Name, "match ")
	}
	return Verdict{}, true
}

func (w *walk) match(s Match) bool {
	value := []byte(w.load(s.Operand))
	for i := range s.Mask {
		value[i] &= s.Mask[i]
	}
	return strings.HasPrefix(string(value), string(s.Value)) != s.Not
}

func (w *walk) translate(s DNAT) (Verdict, bool) {
	to := s.To
	if s.Map != "" {
		e, found := w.find(s.Map, s.Key)
		if !found {
			return Verdict{}, false
		}
		n := 4 * s.Family.words()
		to = netip.AddrPortFrom(address(e.Value[:n]), binary.BigEndian.Uint16([]byte(e.Value[n:])))
	}
	w.packet.Destination, w.packet.Translated, w.nat = to, true, true
	return Verdict{Kind: Accept}, true
}

func (w *walk) key(k Key) Data {
	var key Data
	for _, o := range k.operands() {
		v := w.load(o)
		key += pad([]byte(v))
	}
	return key
}

func (w *walk) find(set string, k Key) (Element, bool) {
	key := w.key(k)
	elements := w.table.Elements[set]
	i := slices.IndexFunc(elements, func(e Element) bool {
		return e.Key == key || e.End != "" && w.within(set, e, key)
	})
	if i < 0 {
		return Element{}, false
	}
	return elements[i], true
}

// within reports whether each field of a key lies in the element's range.
func (w *walk) within(set string, e Element, key Data) bool {
	at := slices.IndexFunc(w.table.Sets, func(s Set) bool { return s.Name == set })
	from := 0
	for _, t := range w.table.Sets[at].Key {
		to := from + t.width()
		if key[from:to] < e.Key[from:to] || key[from:to] > e.End[from:to] {
			return false
		}
		from = to
	}
	return true
}

func (w *walk) update(s Update) bool {
	key := w.key(s.Key)
	elements := w.table.Elements[s.Set]
	i := slices.IndexFunc(elements, func(e Element) bool { return e.Key == key })
	if i < 0 {
		set := slices.IndexFunc(w.table.Sets, func(t Set) bool { return t.Name == s.Set })
		if size := w.table.Sets[set].Size; size > 0 && len(elements) >= int(size) {
			return false
		}
		i, elements = len(elements), append(elements, Element{Key: key})
	}
	elements[i].Timeout, elements[i].Expires = s.Timeout, max(s.Timeout, time.Nanosecond)
	w.table.Elements[s.Set] = elements
	return true
}

// load returns the value of an operand for this packet, without padding.
func (w *walk) load(o Operand) Data {
	p := w.packet
	port := func(n uint16) Data { return Data(binary.BigEndian.AppendUint16(nil, n)) }
	addr := func(a netip.Addr, is4 bool) Data {
		if a.Is4() != is4 {
			panic(fmt.Sprintf("a rule of table %s reads %s of a packet with %s: OfFamily must precede it",
				w.table.TableName, o, a))
		}
		return Data(a.AsSlice())
	}
	name := func(n string) Data { return Data(n + strings.Repeat("\x00", 16-len(n))) }
	kind := func(a netip.Addr) Data {
		if w.fake.isLocal(a) {
			return Number(unix.RTN_LOCAL)
		}
		return Number(unix.RTN_UNICAST)
	}
	switch o.Field {
	case IPSaddr, IP6Saddr:
		return addr(p.Source.Addr(), o.Field == IPSaddr)
	case IPDaddr, IP6Daddr:
		return addr(p.Destination.Addr(), o.Field == IPDaddr)
	case NFProto:
		return OfFamily(w.family()).Value
	case L4Proto:
		return Data([]byte{p.Protocol})
	case Sport:
		return port(p.Source.Port())
	case Dport:
		return port(p.Destination.Port())
	case Iifname:
		return name(p.In)
	case Oifname:
		return name(p.Out)
	case Mark:
		return Number(p.Mark)
	case CTState:
		return Number(p.State)
	case CTStatus:
		if p.Translated {
			return Number(StatusDNAT)
		}
		return Number(0)
	case SourceType:
		return kind(p.Source.Addr())
	case DestinationType:
		return kind(p.Destination.Addr())
	case random:
		return Number(o.offset + w.fake.random.Uint32N(o.modulus))
	}
	return o.value
}
