package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// decompiler turns the expressions of a rule back into statements. It follows the content of each
// register. An expression that the decompiler does not know becomes Other, and changes none of
// these contents. A load of a value that is none of fields empties its register; a comparison of an
// empty register becomes Other.
type decompiler struct {
	registers  map[uint32]content
	statements []Statement
}

// content is the content of a register: an operand, perhaps masked, or the value of a key in a map.
type content struct {
	operand   Operand
	mask, xor Data
	key       Key    // looked up in mapName
	mapName   string // empty: operand, mask and xor count
}

func decompile(exprs []expr.Any) []Statement {
	d := decompiler{registers: map[uint32]content{}}
	for _, e := range exprs {
		d.step(e)
	}
	return d.statements
}

func (d *decompiler) add(s Statement) { d.statements = append(d.statements, s) }

// reg32 returns the number of a register as a 32-bit register. For a 32-bit register that is the
// first of a 128-bit register, the kernel reports the number of the 128-bit one, NFT_REG_1 to
// NFT_REG_4.
func reg32(register uint32) uint32 {
	if register >= unix.NFT_REG_1 && register <= unix.NFT_REG_4 {
		return register0 + 4*(register-unix.NFT_REG_1)
	}
	return register
}

func (d *decompiler) step(e expr.Any) {
	switch e := e.(type) {
	case *expr.Immediate:
		d.registers[reg32(e.Register)] = content{operand: Constant(Data(e.Data))}
	case *expr.Numgen:
		d.registers[reg32(e.Register)] = content{operand: Random(e.Modulus, e.Offset)}
	case *expr.Bitwise:
		c := d.registers[reg32(e.SourceRegister)]
		c.mask, c.xor = Data(e.Mask), Data(e.Xor)
		d.registers[reg32(e.DestRegister)] = c
	case *expr.Cmp:
		d.match(e)
	case *expr.Lookup:
		d.lookup(e)
	case *expr.NAT:
		d.nat(e)
	case *expr.Meta:
		if e.SourceRegister {
			d.metaSet(e)
			return
		}
		d.load(e.Register, expr.Meta{Key: e.Key})
	case *expr.Payload:
		if e.OperationType == expr.PayloadWrite {
			d.add(Other{"payload set"})
			return
		}
		loaded := *e
		loaded.DestRegister = 0
		d.load(e.DestRegister, loaded)
	case *expr.Ct:
		if e.Register == 0 { // google/nftables does not decode the source register
			d.add(Other{"ct set"})
			return
		}
		d.load(e.Register, expr.Ct{Key: e.Key, Direction: e.Direction})
	case *expr.Fib:
		loaded := *e
		loaded.Register = 0
		d.load(e.Register, loaded)
	case *expr.Dynset:
		d.add(Update{Key: d.takeKey(e.SrcRegKey), Set: e.SetName, Timeout: e.Timeout})
	case *expr.Masq:
		d.add(Masquerade{FullyRandom: e.FullyRandom})
	case *expr.Reject:
		d.add(Reject{Type: e.Type, Code: e.Code})
	case *expr.Verdict:
		v, ok := verdict(e.Kind, e.Chain)
		if !ok {
			d.add(Other{fmt.Sprintf("verdict %d", e.Kind)})
			return
		}
		d.add(v)
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

// load records which field the expression `loaded` put into register. The destination register in
// `loaded` is 0, as in fields, so that the two can be compared. For a prefix of whole bytes, the
// nft tool loads only those bytes of the address.
func (d *decompiler) load(register uint32, loaded any) {
	for f, field := range fields {
		if field.load == nil {
			continue
		}
		if field.load == loaded || loadsPrefix(field.load, loaded) {
			d.registers[reg32(register)] = content{operand: Of(Field(f))}
			return
		}
	}
	delete(d.registers, reg32(register))
}

// loadsPrefix reports whether part loads the first bytes of the address that whole loads.
func loadsPrefix(whole, part any) bool {
	w, isWhole := whole.(expr.Payload)
	p, isPart := part.(expr.Payload)
	isPrefix := isWhole && isPart && p.Base == expr.PayloadBaseNetworkHeader && p.Len <= w.Len
	p.Len = w.Len // the only difference that a prefix may have
	return isPrefix && p == w
}

func (d *decompiler) match(e *expr.Cmp) {
	c := d.registers[reg32(e.Register)]
	noXor := strings.Trim(string(c.xor), "\x00") == ""
	if c.operand.Field == noField || c.mapName != "" || !noXor || e.Op != expr.CmpOpEq && e.Op != expr.CmpOpNeq {
		d.add(Other{"cmp"})
		return
	}
	value := Data(e.Data)
	if f := c.operand.Field; (f == Iifname || f == Oifname) && strings.HasSuffix(string(value), "\x00") {
		// iptables-nft compares an interface name up to its NUL, the nft tool all IFNAMSIZ bytes:
		// pad it. A prefix (eth*) has no NUL and stays.
		value += Data(strings.Repeat("\x00", max(0, unix.IFNAMSIZ-len(value))))
	}
	d.add(Match{Operand: c.operand, Mask: c.mask, Value: value, Not: e.Op == expr.CmpOpNeq})
}

// takeKey returns the operands in consecutive registers, beginning with register, and forgets the
// content of all registers: each statement loads those that it needs.
func (d *decompiler) takeKey(register uint32) Key {
	var k Key
	at := reg32(register)
	for i := range k {
		c, ok := d.registers[at]
		if !ok || c.mapName != "" || c.mask != "" {
			break
		}
		k[i] = c.operand
		at += c.operand.words()
	}
	clear(d.registers)
	return k
}

func (d *decompiler) lookup(e *expr.Lookup) {
	k := d.takeKey(e.SourceRegister)
	switch {
	case !e.IsDestRegSet:
		d.add(In{Key: k, Set: e.SetName, Not: e.Invert})
	case e.DestRegister == unix.NFT_REG_VERDICT:
		d.add(Dispatch{Key: k, Map: e.SetName})
	default:
		d.registers[reg32(e.DestRegister)] = content{key: k, mapName: e.SetName}
	}
}

func (d *decompiler) nat(e *expr.NAT) {
	addr, port := d.registers[reg32(e.RegAddrMin)], d.registers[reg32(e.RegProtoMin)]
	s := DNAT{Family: IPv4}
	if e.Family == unix.NFPROTO_IPV6 {
		s.Family = IPv6
	}
	switch {
	case e.Type != expr.NATTypeDestNAT:
		d.add(Other{"nat"})
		return
	case addr.mapName != "":
		s.Key, s.Map = addr.key, addr.mapName
	case addr.operand.Field == constant && port.operand.Field == constant:
		s.To = netip.AddrPortFrom(address(addr.operand.value), binary.BigEndian.Uint16([]byte(port.operand.value)))
	default:
		d.add(Other{"nat"})
		return
	}
	clear(d.registers)
	d.add(s)
}

func (d *decompiler) metaSet(e *expr.Meta) {
	c := d.registers[reg32(e.Register)]
	if e.Key != expr.MetaKeyMARK || c.operand != Of(Mark) || len(c.mask) != 4 || len(c.xor) != 4 {
		d.add(Other{"meta set"})
		return
	}
	d.add(SetMark{And: binary.NativeEndian.Uint32([]byte(c.mask)), Xor: binary.NativeEndian.Uint32([]byte(c.xor))})
}

// verdict returns the verdict of an expression or of a map's element; false if it is none of
// verdicts.
func verdict(kind expr.VerdictKind, chain string) (Verdict, bool) {
	for k, v := range verdicts {
		if v == kind {
			return Verdict{k, chain}, true
		}
	}
	return Verdict{}, false
}
