package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Type is the type of a field of a key or value.
type Type uint8

// The types. TypeVerdict is the value of a verdict map.
const (
	NoType Type = iota
	TypeIPv4
	TypeIPv6
	TypeProtocol
	TypePort
	TypeMark
	TypeInterface
	TypeVerdict
)

// Types are the fields of a key or value, in order: up to five.
type Types [5]Type

// Set is a set, or a map if it has a Value.
type Set struct {
	Name       string
	Key, Value Types
	// Interval sets hold ranges: their elements have an End.
	Interval bool
	// Dynamic sets are added to by rules (Update). Elements with a Timeout need Expiring.
	Dynamic, Expiring bool
	// Size bounds the number of elements; 0: no bound.
	Size uint32
}

func (s Set) String() string {
	if s.Value != (Types{}) {
		return "map " + s.Name
	}
	return "set " + s.Name
}

// Data is the bytes of a key or value as the kernel compares them: each field begins at a multiple
// of four. The Append functions build it.
type Data string

// Element is an element of a set, or of a map if it has a Value or a Verdict.
type Element struct {
	Key Data
	// End is the last key of a range that begins at Key, in an interval set.
	End     Data
	Value   Data
	Verdict Verdict
	// Timeout is how long the element stays after it was added. When it is read, Expires is what
	// remains of that.
	Timeout, Expires time.Duration
}

// AppendAddr appends an address; the unspecified one is zeros.
func AppendAddr(b []byte, a netip.Addr) []byte { return append(b, a.AsSlice()...) }

// AppendProtocol appends a transport protocol by its number.
func AppendProtocol(b []byte, p uint8) []byte { return append(b, p, 0, 0, 0) }

// AppendPort appends a port.
func AppendPort(b []byte, p uint16) []byte { return append(binary.BigEndian.AppendUint16(b, p), 0, 0) }

// AppendUint32 appends a mark or another number, in the host's byte order.
func AppendUint32(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }

// Number is a single number as Data.
func Number(v uint32) Data { return Data(AppendUint32(nil, v)) }

// Range returns the first and last address of a prefix, as Key and End of an element.
func Range(p netip.Prefix) (first, last Data) {
	b := p.Masked().Addr().AsSlice()
	first = Data(b)
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return first, Data(b)
}

// Text is an element of the set in nft's syntax.
func (s Set) Text(e Element) string {
	text := s.Key.text(e.Key)
	if e.End != "" {
		text += "-" + s.Key.text(e.End)
	}
	if e.Timeout > 0 {
		text += " timeout " + e.Timeout.String()
	}
	switch {
	case e.Verdict != (Verdict{}):
		text += " : " + e.Verdict.String()
	case e.Value != "":
		text += " : " + s.Value.text(e.Value)
	}
	return text
}

// text prints data of these types.
func (t Types) text(d Data) string {
	var fields []string
	for _, f := range t {
		n := min(f.width(), len(d))
		if f == NoType || n == 0 {
			break
		}
		fields = append(fields, f.text(d[:n]))
		d = d[n:]
	}
	return strings.Join(fields, " . ")
}

func (t Type) text(d Data) string {
	b := []byte(d)
	switch t {
	case TypeIPv4, TypeIPv6:
		return address(d).String()
	case TypeProtocol:
		return protocolName(b[0])
	case TypePort:
		return fmt.Sprint(binary.BigEndian.Uint16(b))
	case TypeInterface:
		return fmt.Sprintf("%q", strings.TrimRight(string(d), "\x00"))
	}
	return fmt.Sprint(binary.NativeEndian.Uint32(b))
}

// width is the number of bytes that a field takes, with its padding.
func (t Type) width() int {
	switch t {
	case NoType, TypeVerdict:
		return 0
	case TypeIPv6, TypeInterface:
		return 16
	}
	return 4
}

func (t Types) width() int {
	n := 0
	for _, f := range t {
		n += f.width()
	}
	return n
}

func (t Types) count() int {
	n := 0
	for n < len(t) && t[n] != NoType {
		n++
	}
	return n
}

func address(d Data) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(d))
	return a
}

func protocolName(p uint8) string {
	switch p {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "ipv6-icmp"
	case 132:
		return "sctp"
	}
	return fmt.Sprint(p)
}
