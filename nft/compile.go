package nft

import (
	"strings"

	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"
)

// register0 is where each statement begins. The operands of a key lie side by side from
// there on; sixteen registers hold a client, a destination and a port, all of IPv6.
const register0 = unix.NFT_REG32_00

// load puts an operand into a register.
func (o Operand) load(register uint32) expr.Any {
	switch o.Field {
	case constant:
		return &expr.Immediate{Register: register, Data: []byte(o.value)}
	case random:
		return &expr.Numgen{Register: register, Modulus: o.modulus, Offset: o.offset, Type: unix.NFT_NG_RANDOM}
	}
	switch e := fields[o.Field].load.(type) {
	case expr.Payload:
		e.DestRegister = register
		return &e
	case expr.Meta:
		e.Register = register
		return &e
	case expr.Ct:
		e.Register = register
		return &e
	case expr.Fib:
		e.Register = register
		return &e
	}
	return nil
}

func (k Key) load() []expr.Any {
	var exprs []expr.Any
	register := uint32(register0)
	for _, o := range k.operands() {
		exprs = append(exprs, o.load(register))
		register += o.words()
	}
	return exprs
}

// words is the number of registers that an address of the family takes.
func (f Family) words() uint32 {
	if f == IPv6 {
		return 4
	}
	return 1
}

func (f Family) nfproto() uint32 {
	if f == IPv6 {
		return unix.NFPROTO_IPV6
	}
	return unix.NFPROTO_IPV4
}

var verdicts = map[Kind]expr.VerdictKind{
	Accept: expr.VerdictAccept, Drop: expr.VerdictDrop, Return: expr.VerdictReturn,
	Jump: expr.VerdictJump, Goto: expr.VerdictGoto, Continue: expr.VerdictContinue,
}

func (s Verdict) compile() *expr.Verdict {
	return &expr.Verdict{Kind: verdicts[s.Kind], Chain: s.Chain}
}

// compile turns a statement into the kernel's expressions.
func compile(s Statement) []expr.Any {
	switch s := s.(type) {
	case Match:
		return s.compile()
	case In:
		return append(s.Key.load(), &expr.Lookup{SetName: s.Set, SourceRegister: register0, Invert: s.Not})
	case Dispatch:
		return append(s.Key.load(), lookup(s.Map, unix.NFT_REG_VERDICT))
	case DNAT:
		return s.compile()
	case Masquerade:
		return []expr.Any{&expr.Masq{FullyRandom: s.FullyRandom}}
	case SetMark:
		return []expr.Any{
			Of(Mark).load(register0),
			bitwise(Number(s.And), Number(s.Xor)),
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register0},
		}
	case Update:
		return append(s.Key.load(), &expr.Dynset{
			SetName: s.Set, SrcRegKey: register0, Operation: unix.NFT_DYNSET_OP_UPDATE, Timeout: s.Timeout,
		})
	case Reject:
		return []expr.Any{&expr.Reject{Type: s.Type, Code: s.Code}}
	case Verdict:
		return []expr.Any{s.compile()}
	case Counter:
		return []expr.Any{&expr.Counter{}}
	case Other:
		if name, ok := strings.CutPrefix(s.Name, "target "); ok { // those of iptables that need no options
			return []expr.Any{&expr.Target{Name: name, Info: new(xt.Unknown(make([]byte, 8)))}}
		}
	}
	return nil
}

func (s Match) compile() []expr.Any {
	exprs := []expr.Any{s.Operand.load(register0)}
	if s.Mask != "" {
		exprs = append(exprs, bitwise(s.Mask, Data(make([]byte, len(s.Mask)))))
	}
	op := expr.CmpOpEq
	if s.Not {
		op = expr.CmpOpNeq
	}
	return append(exprs, &expr.Cmp{Op: op, Register: register0, Data: []byte(s.Value)})
}

func (s DNAT) compile() []expr.Any {
	var exprs []expr.Any
	if s.Map != "" {
		exprs = append(s.Key.load(), lookup(s.Map, register0))
	} else {
		exprs = []expr.Any{
			&expr.Immediate{Register: register0, Data: AppendAddr(nil, s.To.Addr())},
			&expr.Immediate{Register: register0 + s.Family.words(), Data: AppendPort(nil, s.To.Port())},
		}
	}
	return append(exprs, &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: s.Family.nfproto(),
		RegAddrMin: register0, RegProtoMin: register0 + s.Family.words(),
	})
}

func lookup(set string, to uint32) expr.Any {
	return &expr.Lookup{SetName: set, SourceRegister: register0, DestRegister: to, IsDestRegSet: true}
}

func bitwise(mask, xor Data) expr.Any {
	return &expr.Bitwise{
		SourceRegister: register0, DestRegister: register0,
		Len: uint32(len(mask)), Mask: []byte(mask), Xor: []byte(xor),
	}
}
