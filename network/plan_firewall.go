package network

import (
	"net/netip"
	"slices"

	"flyball.dev/nft"
)

// maxJumps is the kernel's limit of nested jumps.
const maxJumps = 16

// dropsAny reports whether a base chain drops packets from Pods of any of the ranges.
func dropsAny(c nft.FilterChain, clusters []netip.Prefix) bool {
	return slices.ContainsFunc(clusters, func(cidr netip.Prefix) bool { return drops(c, cidr) })
}

// drops reports whether a base chain drops packets, or rejects them: by its policy, as Docker's and
// ufw's do, or by a rule without conditions, as firewalld's last rule.
//
// With a source, drops is about packets from the Pods of that range, and the first rule that
// applies to them decides. That rule may be in a chain that is jumped to: ufw and firewalld keep
// their users' rules there. Without a source no accept counts, since the netlink library does not
// decode all conditions.
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

// accepts reports whether a chain that is jumped to accepts packets of Pods. A drop does not count:
// it may be for other packets, such as those that an earlier rule did not return.
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

// outcome returns the verdict of a rule, or Continue if the rule has none or applies to some
// packets only. source is that of drops.
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
			case "log", "match comment", "meta set", "ct set", "payload set":
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
