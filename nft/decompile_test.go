package nft

import (
	"slices"
	"testing"

	"github.com/google/nftables/expr"
)

// TestOther: a rule has a statement for each expression that does something.
func TestOther(t *testing.T) {
	loadMark := &expr.Meta{Key: expr.MetaKeyMARK, Register: 1}
	for name, tc := range map[string]struct {
		reason string
		expr   expr.Any
		want   []Statement
	}{
		"PayloadSet": {"it changes the packet", &expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, []Statement{Other{"payload set"}}},
		"CtSet":      {"the library decodes no register of it", &expr.Ct{Key: expr.CtKeyMARK}, []Statement{Other{"ct set"}}},
		"MetaSet":    {"only the mark can be set", &expr.Meta{Key: expr.MetaKeyPRIORITY, SourceRegister: true, Register: 1}, []Statement{Other{"meta set"}}},
		"Verdict":    {"NFT_BREAK is no verdict of ours", &expr.Verdict{Kind: expr.VerdictBreak}, []Statement{Other{"verdict -2"}}},
		"Continue":   {"the kernel knows this verdict", &expr.Verdict{Kind: expr.VerdictContinue}, []Statement{Verdict{Kind: Continue}}},
		"Load":       {"it only fills a register", &expr.Ct{Key: expr.CtKeyMARK, Register: 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := decompile([]expr.Any{loadMark, tc.expr}); !slices.Equal(got, tc.want) {
				t.Errorf("%s: decompile() = %v, want %v", tc.reason, got, tc.want)
			}
		})
	}
}

// TestInterfaceName: a condition on a whole name is the same, by whatever program it was written.
func TestInterfaceName(t *testing.T) {
	for name, tc := range map[string]struct {
		reason, data string
		want         Match
	}{
		"nft":      {"all 16 bytes, padded with NULs", "flyball0\x00\x00\x00\x00\x00\x00\x00\x00", InterfaceIs(Iifname, "flyball0")},
		"iptables": {"the name up to its NUL", "flyball0\x00", InterfaceIs(Iifname, "flyball0")},
		"Prefix":   {"-i fly+ means other interfaces as well", "fly", Match{Operand: Of(Iifname), Value: "fly"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := decompile([]expr.Any{
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(tc.data)},
			})
			if !slices.Equal(got, []Statement{tc.want}) {
				t.Errorf("%s: decompile() = %v, want %v", tc.reason, got, tc.want)
			}
		})
	}
}
