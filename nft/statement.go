package nft

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Statement is one step of a rule: Match, In, Dispatch, DNAT, Masquerade, SetMark, Update, Reject,
// Verdict, Counter, or Other. Each is comparable, and reads no register that another one wrote.
type Statement interface {
	fmt.Stringer
	statement()
}

// Match compares an operand with a value, after a mask if there is one.
type Match struct {
	Operand     Operand
	Mask, Value Data
	Not         bool
}

// In matches if a set has the key.
type In struct {
	Key Key
	Set string
	Not bool
}

// Dispatch finds the verdict in a map. It does not match if the map has no such key.
type Dispatch struct {
	Key Key
	Map string
}

// DNAT rewrites the destination: to To, or to the address and port that Map has under Key; it does
// not match if the map has no such key.
type DNAT struct {
	Family Family
	To     netip.AddrPort
	Key    Key
	Map    string
}

// Masquerade replaces the source address by that of the interface that the packet leaves through.
type Masquerade struct{ FullyRandom bool }

// SetMark makes the packet's mark mark&And^Xor.
type SetMark struct{ And, Xor uint32 }

// Update adds the key to a set, or restarts its timeout. It does not match if the set is full.
type Update struct {
	Key     Key
	Set     string
	Timeout time.Duration
}

// Reject answers the packet: with a TCP reset, or with an ICMP error.
type Reject struct {
	Type uint32 // NFT_REJECT_ICMP_UNREACH, NFT_REJECT_TCP_RST or NFT_REJECT_ICMPX_UNREACH
	Code uint8
}

// Verdict ends the rule, and decides what happens to the packet.
type Verdict struct {
	Kind  Kind
	Chain string // for Jump and Goto
}

// Counter counts packets; iptables has one in each rule.
type Counter struct{}

// Other is an expression in another program's rule for which there is no statement here: its name,
// such as "log", or "match tcp" and "target REJECT" for extensions of iptables.
type Other struct{ Name string }

// Kind is the kind of a Verdict.
type Kind uint8

// The kinds.
const (
	noVerdict Kind = iota
	Accept
	Drop
	Return
	Jump
	Goto
	Continue
)

// States of a connection and its translation, as bits.
const (
	StateEstablished = 1 << 1
	StateRelated     = 1 << 2
	StateNew         = 1 << 3

	StatusDNAT = 1 << 5
)

// SourceIn matches packets from a prefix.
func SourceIn(p netip.Prefix) Match { return inPrefix(IPSaddr, IP6Saddr, p) }

// DestinationIn matches packets to a prefix.
func DestinationIn(p netip.Prefix) Match { return inPrefix(IPDaddr, IP6Daddr, p) }

// Not returns a Match of all packets that m does not match.
func Not(m Match) Match {
	m.Not = !m.Not
	return m
}

func inPrefix(four, six Field, p netip.Prefix) Match {
	first, last := Range(p)
	mask := []byte(first)
	for i := range mask {
		mask[i] = ^(first[i] ^ last[i])
	}
	f := four
	if p.Addr().Is6() {
		f = six
	}
	return Match{Operand: Of(f), Mask: Data(mask), Value: first}
}

// OfFamily matches the packets of a family, in a table for both.
func OfFamily(f Family) Match {
	return Match{Operand: Of(NFProto), Value: map[Family]Data{IPv4: "\x02", IPv6: "\x0a"}[f]}
}

// OfProtocol matches the transport protocol.
func OfProtocol(p uint8) Match { return Match{Operand: Of(L4Proto), Value: Data([]byte{p})} }

// ToPort matches the destination port.
func ToPort(p uint16) Match {
	return Match{Operand: Of(Dport), Value: Data(binary.BigEndian.AppendUint16(nil, p))}
}

// InterfaceIs matches the interface by which a packet came in (Iifname) or leaves (Oifname).
func InterfaceIs(f Field, name string) Match {
	return Match{Operand: Of(f), Value: Data(name + strings.Repeat("\x00", 16-len(name)))}
}

// IsLocal matches if an address (SourceType or DestinationType) is one of this host.
func IsLocal(f Field) Match { return Match{Operand: Of(f), Value: Number(unix.RTN_LOCAL)} }

// HasBits matches if any of the bits of Mark, CTState or CTStatus is set.
func HasBits(f Field, bits uint32) Match {
	return Match{Operand: Of(f), Mask: Number(bits), Value: Number(0), Not: true}
}

// OneIn matches one packet in n, at random.
func OneIn(n uint32) Match { return Match{Operand: Random(n, 0), Value: Number(0)} }

// JumpTo continues in another chain, and returns at its end.
func JumpTo(chain string) Verdict { return Verdict{Kind: Jump, Chain: chain} }

// GoTo continues in another chain, without a return.
func GoTo(chain string) Verdict { return Verdict{Kind: Goto, Chain: chain} }

// RejectWithReset answers a TCP packet.
func RejectWithReset() Reject { return Reject{Type: unix.NFT_REJECT_TCP_RST} }

// RejectUnreachable answers, in a table of a family, that the port is unreachable.
func RejectUnreachable(f Family) Reject { return unreachable[f] }

var unreachable = map[Family]Reject{
	IPv4: {unix.NFT_REJECT_ICMP_UNREACH, 3}, IPv6: {unix.NFT_REJECT_ICMP_UNREACH, 4},
	Inet: {unix.NFT_REJECT_ICMPX_UNREACH, unix.NFT_REJECT_ICMPX_PORT_UNREACH},
}

// Prefix returns the prefix that a Match compares an address with; false if there is none.
func (m Match) Prefix() (netip.Prefix, bool) {
	if !slices.Contains([]Field{IPSaddr, IPDaddr, IP6Saddr, IP6Daddr}, m.Operand.Field) {
		return netip.Prefix{}, false
	}
	full := int(m.Operand.bytes())
	n := len(m.Value) * 8
	if m.Mask != "" {
		n = 0
		for _, b := range []byte(m.Mask) {
			n += bits.LeadingZeros8(^b)
			if b != 0xff {
				break
			}
		}
	}
	value := append([]byte(m.Value), make([]byte, max(0, full-len(m.Value)))...)
	return netip.PrefixFrom(address(Data(value)), n), true
}

func (m Match) String() string {
	op := ""
	if m.Not {
		op = "!= "
	}
	if p, ok := m.Prefix(); ok {
		return fmt.Sprintf("%s %s%s", m.Operand, op, p)
	}
	if m.Mask != "" && m.Not && m.Value == Number(0) {
		return bitsText(m.Operand, binary.NativeEndian.Uint32([]byte(m.Mask)))
	}
	text := fmt.Sprintf("%#x", []byte(m.Value))
	switch f := m.Operand.Field; {
	case f == L4Proto:
		text = protocolName(m.Value[0])
	case f == NFProto:
		text = map[Data]string{"\x02": "ipv4", "\x0a": "ipv6"}[m.Value]
	case f == Sport || f == Dport:
		text = fmt.Sprint(binary.BigEndian.Uint16([]byte(m.Value)))
	case f == Iifname || f == Oifname:
		text = fmt.Sprintf("%q", strings.TrimRight(string(m.Value), "\x00"))
	case m.Value == Number(unix.RTN_LOCAL) && (f == SourceType || f == DestinationType):
		text = "local"
	case f == random:
		text = "== " + fmt.Sprint(binary.NativeEndian.Uint32([]byte(m.Value)))
	}
	return fmt.Sprintf("%s %s%s", m.Operand, op, text)
}

func bitsText(o Operand, mask uint32) string {
	names := map[uint32]string{}
	switch o.Field {
	case CTState:
		names = map[uint32]string{StateEstablished: "established", StateRelated: "related", StateNew: "new"}
	case CTStatus:
		names = map[uint32]string{StatusDNAT: "dnat"}
	}
	var words []string
	for b := uint32(1); b != 0; b <<= 1 {
		if name := names[mask&b]; name != "" {
			words = append(words, name)
			mask &^= b
		}
	}
	if len(words) > 0 && mask == 0 {
		return o.String() + " " + strings.Join(words, ",")
	}
	return fmt.Sprintf("%s and %#x != 0", o, mask)
}

func (s In) String() string {
	if s.Not {
		return fmt.Sprintf("%s != @%s", s.Key, s.Set)
	}
	return fmt.Sprintf("%s @%s", s.Key, s.Set)
}

func (s Dispatch) String() string { return fmt.Sprintf("%s vmap @%s", s.Key, s.Map) }

func (s DNAT) String() string {
	if s.Map == "" {
		return fmt.Sprintf("dnat %s to %s", s.Family, s.To)
	}
	return fmt.Sprintf("dnat %s to %s map @%s", s.Family, s.Key, s.Map)
}

func (s Masquerade) String() string {
	if s.FullyRandom {
		return "masquerade fully-random"
	}
	return "masquerade"
}

func (s SetMark) String() string {
	text := "meta mark set meta mark"
	if s.And != ^s.Xor && ^s.And != 0 {
		text += fmt.Sprintf(" and %#x", s.And)
	}
	switch {
	case s.Xor == 0:
		return text
	case s.And == ^s.Xor:
		return text + fmt.Sprintf(" or %#x", s.Xor)
	}
	return text + fmt.Sprintf(" xor %#x", s.Xor)
}

func (s Update) String() string {
	return fmt.Sprintf("update @%s { %s timeout %ds }", s.Set, s.Key, int(s.Timeout.Seconds()))
}

func (s Reject) String() string {
	switch s {
	case RejectWithReset():
		return "reject with tcp reset"
	case unreachable[IPv4]:
		return "reject with icmp port-unreachable"
	case unreachable[IPv6]:
		return "reject with icmpv6 port-unreachable"
	case unreachable[Inet]:
		return "reject with icmpx port-unreachable"
	}
	return fmt.Sprintf("reject with type %d code %d", s.Type, s.Code)
}

func (s Verdict) String() string {
	kind := [...]string{"none", "accept", "drop", "return", "jump", "goto", "continue"}[s.Kind]
	if s.Chain != "" {
		return kind + " " + s.Chain
	}
	return kind
}

func (Counter) String() string { return "counter" }

func (s Other) String() string { return s.Name }

func (Match) statement()      {}
func (In) statement()         {}
func (Dispatch) statement()   {}
func (DNAT) statement()       {}
func (Masquerade) statement() {}
func (SetMark) statement()    {}
func (Update) statement()     {}
func (Reject) statement()     {}
func (Verdict) statement()    {}
func (Counter) statement()    {}
func (Other) statement()      {}
