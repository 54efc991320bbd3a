package network

import (
	"net/netip"
	"slices"

	"flyball.dev/nft"
)

// forwardMark begins the comment of each rule that we put into a chain of another program. What
// follows is the rule.
const forwardMark = "flyball: "

// forwardChain is a chain of another program that forwarded packets traverse. An accept in a chain
// of our own is no help, since a packet must pass all of them.
type forwardChain struct {
	nft.BaseChain
	// Drops is set if packets that no rule accepts are dropped or rejected.
	Drops bool
	// Ours are the rules in it that are marked as ours.
	Ours []nft.Rule
}

// forwardRules are those that a chain needs which drops. They consist of such statements as
// iptables has, too, so that iptables-nft still reads its chain.
func forwardRules(c nft.BaseChain, clusters []netip.Prefix) []nft.Rule {
	var rules []nft.Rule
	for _, cidr := range clusters {
		for _, way := range []struct {
			text  string
			match nft.Match
		}{{"from", nft.SourceIn(cidr)}, {"to", nft.DestinationIn(cidr)}} {
			var statements []nft.Statement
			if c.Table.Family == nft.Inet {
				statements = append(statements, nft.OfFamily(nft.IPv4))
			}
			rules = append(rules, nft.Rule{
				Statements: append(statements, way.match, nft.Counter{}, nft.Verdict{Kind: nft.Accept}),
				Comment:    forwardMark + way.text + " Pods in " + cidr.String(),
			})
		}
	}
	return rules
}

// forwardAction inserts a rule at the head of a chain, or removes one.
type forwardAction struct {
	Remove bool
	Rule   nft.Rule
	Reason string
}

// planForward returns what lets the Pods' packets pass in a chain. Without a cluster all rules go.
func planForward(clusters []netip.Prefix, c forwardChain) []forwardAction {
	var actions []forwardAction
	var missing []nft.Rule
	reason := "the chain drops what no rule accepts"
	switch {
	case len(clusters) == 0:
		reason = "the node is taken down"
	case !c.Drops:
		reason = "the chain drops nothing"
	default:
		missing = forwardRules(c.BaseChain, clusters)
	}
	for _, r := range c.Ours {
		i := slices.IndexFunc(missing, func(m nft.Rule) bool { return m.Comment == r.Comment })
		if i < 0 { // not wanted, or there twice
			actions = append(actions, forwardAction{Remove: true, Rule: r, Reason: reason})
			continue
		}
		missing = slices.Delete(missing, i, i+1)
	}
	for _, r := range missing {
		actions = append(actions, forwardAction{Rule: r, Reason: reason})
	}
	return actions
}
