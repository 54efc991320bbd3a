package nft

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables/expr"
)

// Field is what a statement reads of a packet.
type Field uint8

// The fields. Sport and Dport are the ports of any transport protocol. SourceType and
// DestinationType are the types of the host's routes to an address: RTN_LOCAL and so on.
const (
	noField Field = iota
	IPSaddr
	IPDaddr
	IP6Saddr
	IP6Daddr
	NFProto
	L4Proto
	Sport
	Dport
	Iifname
	Oifname
	Mark
	CTState
	CTStatus
	SourceType
	DestinationType
	constant
	random
)

// field has a field's text in nft, its size, and the expression that loads it (with register 0).
type field struct {
	text  string
	bytes uint32
	load  any
}

var fields = [...]field{
	IPSaddr:         {"ip saddr", 4, expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4}},
	IPDaddr:         {"ip daddr", 4, expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4}},
	IP6Saddr:        {"ip6 saddr", 16, expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 8, Len: 16}},
	IP6Daddr:        {"ip6 daddr", 16, expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 16}},
	NFProto:         {"meta nfproto", 1, expr.Meta{Key: expr.MetaKeyNFPROTO}},
	L4Proto:         {"meta l4proto", 1, expr.Meta{Key: expr.MetaKeyL4PROTO}},
	Sport:           {"th sport", 2, expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2}},
	Dport:           {"th dport", 2, expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}},
	Iifname:         {"iifname", 16, expr.Meta{Key: expr.MetaKeyIIFNAME}},
	Oifname:         {"oifname", 16, expr.Meta{Key: expr.MetaKeyOIFNAME}},
	Mark:            {"meta mark", 4, expr.Meta{Key: expr.MetaKeyMARK}},
	CTState:         {"ct state", 4, expr.Ct{Key: expr.CtKeySTATE}},
	CTStatus:        {"ct status", 4, expr.Ct{Key: expr.CtKeySTATUS}},
	SourceType:      {"fib saddr type", 4, expr.Fib{ResultADDRTYPE: true, FlagSADDR: true}},
	DestinationType: {"fib daddr type", 4, expr.Fib{ResultADDRTYPE: true, FlagDADDR: true}},
	constant:        {"", 0, nil},
	random:          {"numgen random", 4, nil},
}

// Operand is one value that a statement works on: a field of the packet, a constant, or a random
// number.
type Operand struct {
	Field Field
	// value is the constant.
	value Data
	// A random number lies from offset to offset+modulus-1.
	modulus, offset uint32
}

// Of returns the operand that reads a field.
func Of(f Field) Operand { return Operand{Field: f} }

// Constant is a value that does not depend on the packet.
func Constant(d Data) Operand { return Operand{Field: constant, value: d} }

// Random is a number from offset to offset+modulus-1, another one for each packet.
func Random(modulus, offset uint32) Operand {
	return Operand{Field: random, modulus: modulus, offset: offset}
}

func (o Operand) String() string {
	switch o.Field {
	case constant:
		if len(o.value) == 4 {
			return fmt.Sprintf("%#x", binary.NativeEndian.Uint32([]byte(o.value)))
		}
		return fmt.Sprintf("%#x", []byte(o.value))
	case random:
		return fmt.Sprintf("numgen random mod %d offset %d", o.modulus, o.offset)
	}
	return fields[o.Field].text
}

func (o Operand) bytes() uint32 {
	if o.Field == constant {
		return uint32(len(o.value))
	}
	return fields[o.Field].bytes
}

// words returns the number of 32-bit registers that the operand takes.
func (o Operand) words() uint32 { return (o.bytes() + 3) / 4 }

// Key is the key of a statement in a set: up to five operands in consecutive registers.
type Key [5]Operand

// operands returns the operands of the key.
func (k Key) operands() []Operand {
	n := 0
	for n < len(k) && k[n].Field != noField {
		n++
	}
	return k[:n]
}

func (k Key) String() string {
	var words []string
	for _, o := range k.operands() {
		words = append(words, o.String())
	}
	return strings.Join(words, " . ")
}
