package network

import (
	"net/netip"
	"slices"

	"flyball.dev/nft"
)

// maxJumps is how deep the kernel lets chains jump.
const maxJumps = 16

// dropsAny reports whether a base chain drops packets of the Pods of any of the ranges.
func dropsAny(c nft.FilterChain, clusters []netip.Prefix) bool {
	return slices.ContainsFunc(clusters, func(cidr netip.Prefix) bool { return drops(c, cidr) })
}

// drops reports whether a base chain drops packets, or rejects them: by its policy, as Docker's and
// ufw's, or by a rule that has no conditions, as firewalld's last one.
//
// With a source these are packets from the Pods of that range, and the first rule that applies to
// them decides. It may stand in a chain that is jumped to: ufw and firewalld keep their users'
// rules there. Without a source no accept counts, since conditions that the netlink library does
// not know are missing from what was read.
func drops(c nft.FilterChain, source netip.Prefix) bool {
	for _, r := range c.Rules {
		switch v := outcome(r, source); v.Kind {
		case nft.Drop:
			return true
		case nft.Accept:
			if source.IsValid() {
				return false
			}
		case nft.Jump, nft.Goto:
			if source.IsValid() && accepts(c.Jumps, v.Chain, source, maxJumps) {
				return false
			}
		}
	}
	return c.DropByDefault
}

// accepts reports whether a chain that is jumped to accepts packets of Pods. One that drops them is
// no end: other packets may be meant, such as those that it did not return before.
func accepts(chains map[string][]nft.Rule, chain string, source netip.Prefix, deep int) bool {
	if deep == 0 {
		return false
	}
	for _, r := range chains[chain] {
		switch v := outcome(r, source); v.Kind {
		case nft.Accept:
			return true
		case nft.Drop, nft.Return:
			return false
		case nft.Jump, nft.Goto:
			if accepts(chains, v.Chain, source, deep-1) {
				return true
			}
		}
	}
	return false
}

// outcome is the verdict of a rule, or to continue if the rule has none or applies to some packets
// only. A source is as for drops.
func outcome(r nft.Rule, source netip.Prefix) nft.Verdict {
	undecided := nft.Verdict{Kind: nft.Continue}
	verdict := undecided
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nft.Counter:
		case nft.Reject:
			verdict = nft.Verdict{Kind: nft.Drop}
		case nft.Verdict:
			verdict = s
		case nft.Other: // of iptables-nft, which has more targets that decide nothing, such as LOG
			switch s.Name {
			case "log", "match comment":
			case "target REJECT":
				verdict = nft.Verdict{Kind: nft.Drop}
			default:
				return undecided
			}
		case nft.Match:
			if !matchesPods(s, source) {
				return undecided
			}
		default:
			return undecided
		}
	}
	return verdict
}

// matchesPods reports whether a condition holds for all IPv4 packets, or for all from the Pods of
// source.
func matchesPods(m nft.Match, source netip.Prefix) bool {
	if m == nft.OfFamily(nft.IPv4) {
		return true
	}
	if m.Not || !source.IsValid() {
		return false
	}
	from, ok := m.Prefix()
	return m == nft.InterfaceIs(nft.Iifname, Bridge) ||
		ok && m.Operand == nft.Of(nft.IPSaddr) && from.Bits() <= source.Bits() && from.Contains(source.Addr())
}
