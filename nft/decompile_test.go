package nft

import (
	"slices"
	"testing"

	"github.com/google/nftables/expr"
)

// TestInterfaceName: a condition on a whole name is the same, by whatever program it was written.
func TestInterfaceName(t *testing.T) {
	for name, tc := range map[string]struct {
		reason, data string
		want         Match
	}{
		"nft":      {"all 16 bytes that the kernel holds", "flyball0\x00\x00\x00\x00\x00\x00\x00\x00", InterfaceIs(Iifname, "flyball0")},
		"iptables": {"the name with the zero behind it", "flyball0\x00", InterfaceIs(Iifname, "flyball0")},
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
