package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// decompiler turns the expressions of a rule back into statements. It follows what each register
// holds; an expression that it does not know becomes Other.
type decompiler struct {
	holds      map[uint32]held
	statements []Statement
}

// held is what a register holds: an operand, perhaps masked, or what a map has under a key.
type held struct {
	operand   Operand
	mask, xor Data
	key       Key
	from      string
}

func decompile(exprs []expr.Any) []Statement {
	d := decompiler{holds: map[uint32]held{}}
	for _, e := range exprs {
		d.step(e)
	}
	return d.statements
}

func (d *decompiler) add(s Statement) { d.statements = append(d.statements, s) }

// number is the number of a register among the 32-bit ones. The kernel shows every fourth by the
// name that it has as a 128-bit one.
func number(register uint32) uint32 {
	if register >= unix.NFT_REG_1 && register <= unix.NFT_REG_4 {
		return register0 + 4*(register-unix.NFT_REG_1)
	}
	return register
}

func (d *decompiler) step(e expr.Any) {
	switch e := e.(type) {
	case *expr.Immediate:
		d.holds[number(e.Register)] = held{operand: Constant(Data(e.Data))}
	case *expr.Numgen:
		d.holds[number(e.Register)] = held{operand: Random(e.Modulus, e.Offset)}
	case *expr.Bitwise:
		h := d.holds[number(e.SourceRegister)]
		h.mask, h.xor = Data(e.Mask), Data(e.Xor)
		d.holds[number(e.DestRegister)] = h
	case *expr.Cmp:
		d.match(e)
	case *expr.Lookup:
		d.lookup(e)
	case *expr.NAT:
		d.nat(e)
	case *expr.Meta:
		if e.SourceRegister {
			d.setMark(e)
			return
		}
		d.load(e)
	case *expr.Payload, *expr.Ct, *expr.Fib:
		d.load(e)
	case *expr.Dynset:
		d.add(Update{Key: d.key(e.SrcRegKey), Set: e.SetName, Timeout: e.Timeout})
	case *expr.Masq:
		d.add(Masquerade{FullyRandom: e.FullyRandom})
	case *expr.Reject:
		d.add(Reject{Type: e.Type, Code: e.Code})
	case *expr.Verdict:
		d.add(verdict(e.Kind, e.Chain))
	case *expr.Counter:
		d.add(Counter{})
	case *expr.Match:
		d.add(Other{"match " + e.Name})
	case *expr.Target:
		d.add(Other{"target " + e.Name})
	default:
		d.add(Other{strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr."))})
	}
}

// load notes the field that a register holds. nft loads the first bytes of an address alone where
// the rest does not count.
func (d *decompiler) load(e expr.Any) {
	var register uint32
	var loaded any
	switch e := e.(type) {
	case *expr.Payload:
		c := *e
		register, c.DestRegister = c.DestRegister, 0
		loaded = c
	case *expr.Meta:
		c := *e
		register, c.Register = c.Register, 0
		loaded = c
	case *expr.Ct:
		c := *e
		register, c.Register = c.Register, 0
		loaded = c
	case *expr.Fib:
		c := *e
		register, c.Register = c.Register, 0
		loaded = c
	}
	for f, known := range fields {
		if known.load == nil {
			continue
		}
		if known.load == loaded || beginsWith(known.load, loaded) {
			d.holds[number(register)] = held{operand: Of(Field(f))}
			return
		}
	}
	delete(d.holds, number(register))
}

// beginsWith reports whether an address is loaded in part.
func beginsWith(whole, part any) bool {
	w, isWhole := whole.(expr.Payload)
	p, isPart := part.(expr.Payload)
	if !isWhole || !isPart || p.Base != expr.PayloadBaseNetworkHeader || p.Len > w.Len {
		return false
	}
	p.Len = w.Len
	return p == w
}

func (d *decompiler) match(e *expr.Cmp) {
	h := d.holds[number(e.Register)]
	plain := strings.Trim(string(h.xor), "\x00") == "" && h.from == ""
	if h.operand.Field == noField || !plain || e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
		d.add(Other{"cmp"})
		return
	}
	value := Data(e.Data)
	if name := h.operand.Field; (name == Iifname || name == Oifname) && strings.HasSuffix(string(value), "\x00") {
		// iptables-nft compares a whole name with the zero behind it, nft all that the kernel
		// holds. A prefix of a name has no zero.
		value += Data(strings.Repeat("\x00", max(0, unix.IFNAMSIZ-len(value))))
	}
	d.add(Match{Operand: h.operand, Mask: h.mask, Value: value, Not: e.Op == expr.CmpOpNeq})
}

// key gathers the operands that lie side by side from a register on.
func (d *decompiler) key(register uint32) Key {
	var k Key
	at := number(register)
	for i := range k {
		h, ok := d.holds[at]
		if !ok || h.from != "" || h.mask != "" {
			break
		}
		k[i] = h.operand
		at += h.operand.words()
	}
	// The next statement loads its own.
	clear(d.holds)
	return k
}

func (d *decompiler) lookup(e *expr.Lookup) {
	k := d.key(e.SourceRegister)
	switch {
	case !e.IsDestRegSet:
		d.add(In{Key: k, Set: e.SetName, Not: e.Invert})
	case e.DestRegister == unix.NFT_REG_VERDICT:
		d.add(Dispatch{Key: k, Map: e.SetName})
	default:
		d.holds[number(e.DestRegister)] = held{key: k, from: e.SetName}
	}
}

func (d *decompiler) nat(e *expr.NAT) {
	h, port := d.holds[number(e.RegAddrMin)], d.holds[number(e.RegProtoMin)]
	s := DNAT{Family: IPv4}
	if e.Family == unix.NFPROTO_IPV6 {
		s.Family = IPv6
	}
	switch {
	case e.Type != expr.NATTypeDestNAT:
		d.add(Other{"nat"})
		return
	case h.from != "":
		s.Key, s.Map = h.key, h.from
	case h.operand.Field == constant && port.operand.Field == constant:
		s.To = netip.AddrPortFrom(address(h.operand.value), binary.BigEndian.Uint16([]byte(port.operand.value)))
	default:
		d.add(Other{"nat"})
		return
	}
	clear(d.holds)
	d.add(s)
}

func (d *decompiler) setMark(e *expr.Meta) {
	h := d.holds[number(e.Register)]
	if e.Key != expr.MetaKeyMARK || h.operand != Of(Mark) || len(h.mask) != 4 || len(h.xor) != 4 {
		d.add(Other{"meta set"})
		return
	}
	d.add(SetMark{And: binary.NativeEndian.Uint32([]byte(h.mask)), Xor: binary.NativeEndian.Uint32([]byte(h.xor))})
}

func verdict(kind expr.VerdictKind, chain string) Verdict {
	for k, v := range verdicts {
		if v == kind {
			return Verdict{k, chain}
		}
	}
	return Verdict{Continue, ""}
}
