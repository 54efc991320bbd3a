package network

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// FirewallChain is a base chain of another program. Docker, ufw and firewalld have such chains.
type FirewallChain struct {
	// Inet chains see IPv6 as well, others IPv4 alone.
	Inet        bool
	Table, Name string
	// Owned is set if the kernel lets the program alone that made the table change it, as firewalld
	// 2.1 and later ask for.
	Owned bool
}

// Family is the table's family in nft's words.
func (c FirewallChain) Family() string {
	if c.Inet {
		return "inet"
	}
	return "ip"
}

func (c FirewallChain) String() string {
	return fmt.Sprintf("chain %s of table %s %s", c.Name, c.Family(), c.Table)
}

// maxJumps is how deep the kernel lets chains jump.
const maxJumps = 16

// drops says whether a base chain drops packets, or rejects them: by its policy, as Docker's and
// ufw's, or by a rule that has no conditions, as firewalld's last one.
//
// With a source these are packets from the Pods of that range, and the first rule that applies to
// them decides. It may stand in a chain that is jumped to: ufw and firewalld keep their users'
// rules there. Without a source no accept counts, since the library leaves out conditions that it
// does not know. jump returns the rules of a chain.
func drops(policy *nftables.ChainPolicy, rules []*nftables.Rule, source netip.Prefix, jump func(string) []*nftables.Rule) bool {
	for _, r := range rules {
		switch v := outcome(r.Exprs, source); v.Kind {
		case expr.VerdictDrop:
			return true
		case expr.VerdictAccept:
			if source.IsValid() {
				return false
			}
		case expr.VerdictJump, expr.VerdictGoto:
			if source.IsValid() && accepts(v.Chain, source, jump, maxJumps) {
				return false
			}
		}
	}
	return policy != nil && *policy == nftables.ChainPolicyDrop
}

// accepts says whether a chain that is jumped to accepts packets of Pods. One that drops them is no
// end: other packets may be meant, such as those that it did not return before.
func accepts(chain string, source netip.Prefix, jump func(string) []*nftables.Rule, deep int) bool {
	if deep == 0 {
		return false
	}
	for _, r := range jump(chain) {
		switch v := outcome(r.Exprs, source); v.Kind {
		case expr.VerdictAccept:
			return true
		case expr.VerdictDrop, expr.VerdictReturn:
			return false
		case expr.VerdictJump, expr.VerdictGoto:
			if accepts(v.Chain, source, jump, deep-1) {
				return true
			}
		}
	}
	return false
}

// outcome is the verdict of a rule, or to continue if the rule has none or applies to some packets
// only. A source is as for drops.
func outcome(exprs []expr.Any, source netip.Prefix) expr.Verdict {
	verdict := expr.Verdict{Kind: expr.VerdictContinue}
	for len(exprs) > 0 {
		n := 1
		switch e := exprs[0].(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			verdict.Kind = expr.VerdictDrop
		case *expr.Verdict:
			verdict = *e
		case *expr.Target: // of iptables-nft, which has others too that decide nothing, such as LOG
			if e.Name != "REJECT" {
				return expr.Verdict{Kind: expr.VerdictContinue}
			}
			verdict.Kind = expr.VerdictDrop
		case *expr.Match:
			if e.Name != "comment" {
				return expr.Verdict{Kind: expr.VerdictContinue}
			}
		default:
			if n = matchesPods(exprs, source); n == 0 {
				return expr.Verdict{Kind: expr.VerdictContinue}
			}
		}
		exprs = exprs[n:]
	}
	return verdict
}

// matchesPods returns how many expressions make up a first condition that holds for all IPv4
// packets, or for all from the Pods of source; 0 if it is another one.
func matchesPods(exprs []expr.Any, source netip.Prefix) int {
	end := slices.IndexFunc(exprs, func(e expr.Any) bool { _, ok := e.(*expr.Cmp); return ok })
	if end < 1 {
		return 0
	}
	cmp := exprs[end].(*expr.Cmp)
	if cmp.Op != expr.CmpOpEq {
		return 0
	}
	ok := false
	switch e := exprs[0].(type) {
	case *expr.Meta:
		switch {
		case end != 1:
		case e.Key == expr.MetaKeyNFPROTO:
			ok = slices.Equal(cmp.Data, []byte{unix.NFPROTO_IPV4})
		case e.Key == expr.MetaKeyIIFNAME:
			ok = source.IsValid() && strings.TrimRight(string(cmp.Data), "\x00") == Bridge
		}
	case *expr.Payload:
		if e.Base != expr.PayloadBaseNetworkHeader || e.Offset != saddrOffset || !source.IsValid() {
			return 0
		}
		network, valid := networkOf(exprs[1:end], cmp.Data)
		ok = valid && network.Bits() <= source.Bits() && network.Contains(source.Addr())
	}
	if !ok {
		return 0
	}
	return end + 1
}

// networkOf is the network that an address is compared with. Where its length is whole bytes, only
// those are loaded, and nothing is masked.
func networkOf(masks []expr.Any, data []byte) (netip.Prefix, bool) {
	if len(data) > 4 || len(masks) > 1 {
		return netip.Prefix{}, false
	}
	bits := 8 * len(data)
	if len(masks) == 1 {
		b, ok := masks[0].(*expr.Bitwise)
		if !ok || len(b.Mask) != len(data) || slices.ContainsFunc(b.Xor, func(x byte) bool { return x != 0 }) {
			return netip.Prefix{}, false
		}
		bits = leadingOnes(b.Mask)
	}
	var address [4]byte
	copy(address[:], data)
	return netip.PrefixFrom(netip.AddrFrom4(address), bits), true
}

func leadingOnes(mask []byte) int {
	n := 0
	for n < 8*len(mask) && mask[n/8]&(0x80>>(n%8)) != 0 {
		n++
	}
	return n
}
