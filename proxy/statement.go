package proxy

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// statement is one step of a rule. It prints in nft's syntax and compiles to the kernel's
// expressions; each reads only registers that it wrote itself.
type statement interface {
	text(f *family) string
	exprs(f *family) []expr.Any
}

// masqueradeBit marks packets between the NAT chain and postrouting.
const masqueradeBit = 0x4000

// scratch is a register for statements that compare one value.
const scratch = unix.NFT_REG32_00

func load(f *family, offset, register uint32) expr.Any {
	return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4 * f.words}
}

// loadPort loads protocol and destination port into two registers.
func loadPort(register uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Payload{DestRegister: register + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}
}

// compare compares the scratch register with a value.
func compare(not bool, data []byte) expr.Any {
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	return &expr.Cmp{Op: op, Register: scratch, Data: data}
}

func lookup(set string, from, to uint32) expr.Any {
	return &expr.Lookup{SetName: set, SourceRegister: from, DestRegister: to, IsDestRegSet: true}
}

func contains(set string, key uint32) expr.Any {
	return &expr.Lookup{SetName: set, SourceRegister: key}
}

// sourceIn and destIn match an address by prefix.
type sourceIn struct {
	prefix netip.Prefix
	not    bool
}

func (s sourceIn) text(f *family) string {
	return f.name + " saddr " + not(s.not) + s.prefix.String()
}
func (s sourceIn) exprs(f *family) []expr.Any { return inPrefix(f, f.saddr, s.prefix, s.not) }

type destIn sourceIn

func (s destIn) text(f *family) string      { return f.name + " daddr " + not(s.not) + s.prefix.String() }
func (s destIn) exprs(f *family) []expr.Any { return inPrefix(f, f.daddr, s.prefix, s.not) }

func not(b bool) string { return map[bool]string{true: "!= "}[b] }

func inPrefix(f *family, offset uint32, p netip.Prefix, not bool) []expr.Any {
	bits := int(32 * f.words)
	return []expr.Any{
		load(f, offset, scratch),
		&expr.Bitwise{
			SourceRegister: scratch, DestRegister: scratch, Len: 4 * f.words,
			Mask: net.CIDRMask(p.Bits(), bits), Xor: make([]byte, 4*f.words),
		},
		compare(not, p.Masked().Addr().AsSlice()),
	}
}

// isLocal matches packets from, or to, an address of this host.
type isLocal struct{ source, not bool }

func (s isLocal) text(*family) string {
	return "fib " + map[bool]string{true: "saddr", false: "daddr"}[s.source] + " type " + not(s.not) + "local"
}

func (s isLocal) exprs(*family) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: scratch, ResultADDRTYPE: true, FlagSADDR: s.source, FlagDADDR: !s.source},
		compare(s.not, register32(unix.RTN_LOCAL)),
	}
}

// l4proto matches the transport protocol.
type l4proto struct{ protocol Protocol }

func (s l4proto) text(*family) string { return "meta l4proto " + s.protocol.String() }
func (s l4proto) exprs(*family) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: scratch}, compare(false, []byte{byte(s.protocol)})}
}

// notFromLoopback matches what came in over a wire.
type notFromLoopback struct{}

func (notFromLoopback) text(*family) string { return `iifname != "lo"` }
func (notFromLoopback) exprs(*family) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	// Sixteen bytes need the first of the four wide registers.
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: unix.NFT_REG_1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: unix.NFT_REG_1, Data: name},
	}
}

// newConnection matches the packets that conntrack has not seen both ways.
type newConnection struct{}

func (newConnection) text(*family) string { return "ct state new" }
func (newConnection) exprs(*family) []expr.Any {
	return bits(&expr.Ct{Key: expr.CtKeySTATE, Register: scratch}, expr.CtStateBitNEW)
}

// destinationNAT matches connections whose destination was rewritten.
type destinationNAT struct{}

func (destinationNAT) text(*family) string { return "ct status dnat" }
func (destinationNAT) exprs(*family) []expr.Any {
	return bits(&expr.Ct{Key: expr.CtKeySTATUS, Register: scratch}, 1<<5) // IPS_DST_NAT
}

// bits matches when any of the bits of what load puts into scratch is set.
func bits(load expr.Any, mask uint32) []expr.Any {
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: scratch, DestRegister: scratch, Len: 4, Mask: register32(mask), Xor: register32(0)},
		compare(true, register32(0)),
	}
}

// markForMasquerade and marked carry a decision to postrouting; marked takes the mark away again,
// so that nobody else meets it.
type markForMasquerade struct{}

func (markForMasquerade) text(*family) string {
	return fmt.Sprintf("meta mark set meta mark or %#x", masqueradeBit)
}
func (markForMasquerade) exprs(*family) []expr.Any { return setMark(masqueradeBit) }

type marked struct{}

func (marked) text(*family) string {
	return fmt.Sprintf("meta mark and %#x != 0 meta mark set meta mark and %#x", masqueradeBit, ^uint32(masqueradeBit))
}

func (marked) exprs(*family) []expr.Any {
	return append(bits(&expr.Meta{Key: expr.MetaKeyMARK, Register: scratch}, masqueradeBit), setMark(0)...)
}

func setMark(bit uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: scratch},
		&expr.Bitwise{SourceRegister: scratch, DestRegister: scratch, Len: 4, Mask: register32(^uint32(masqueradeBit)), Xor: register32(bit)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: scratch},
	}
}

// masquerade replaces the source address by the node's.
type masquerade struct{}

func (masquerade) text(*family) string { return "masquerade fully-random" }
func (masquerade) exprs(*family) []expr.Any {
	return []expr.Any{&expr.Masq{FullyRandom: true}}
}

// hairpin matches a Pod that reached itself.
type hairpin struct{}

func (hairpin) text(f *family) string {
	return fmt.Sprintf("%s saddr . %s daddr @%s", f.name, f.name, Hairpin)
}

func (hairpin) exprs(f *family) []expr.Any {
	return []expr.Any{load(f, f.saddr, scratch), load(f, f.daddr, scratch+f.words), contains(Hairpin.String(), scratch)}
}

// rejectWith tells the client that nobody is there.
type rejectWith struct{ reset bool }

func (s rejectWith) text(*family) string {
	if s.reset {
		return "reject with tcp reset"
	}
	return "reject with icmp port-unreachable"
}

func (s rejectWith) exprs(*family) []expr.Any {
	if s.reset {
		return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}
	}
	return []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_ICMP_UNREACH, Code: 3}}
}

// verdict ends or continues the way through the table.
type verdict struct {
	to    expr.VerdictKind
	chain string
}

const (
	toDrop = expr.VerdictDrop
	toGoto = expr.VerdictGoto
	toJump = expr.VerdictJump
)

func (s verdict) text(*family) string {
	return map[expr.VerdictKind]string{toGoto: "goto ", toJump: "jump ", toDrop: "drop"}[s.to] + s.chain
}

func (s verdict) exprs(*family) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: s.to, Chain: s.chain}}
}

func constant(register uint32, data []byte) expr.Any {
	return &expr.Immediate{Register: register, Data: data}
}
