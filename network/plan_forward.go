package network

import (
	"net/netip"
	"slices"
)

// forwardMark begins the comment of each rule that we put into a chain of another program. What
// follows is the rule.
const forwardMark = "flyball: "

// forwardChain is a chain of another program that forwarded packets traverse. An accept in a chain
// of our own is no help, since a packet must pass all of them.
type forwardChain struct {
	FirewallChain
	// Drops is set if packets that no rule accepts are dropped or rejected.
	Drops bool
	// Ours are the rules in it that are marked as ours.
	Ours []forwardRule
}

// forwardRule accepts packets from the network, or to it.
type forwardRule struct {
	Comment string
	Handle  uint64 // the kernel's; 0 for a rule that is yet to be
	From    bool
	Network netip.Prefix
}

// forwardRules are those that a chain needs which drops.
func forwardRules(cluster netip.Prefix) []forwardRule {
	return []forwardRule{
		{Comment: forwardMark + "from Pods in " + cluster.String(), From: true, Network: cluster},
		{Comment: forwardMark + "to Pods in " + cluster.String(), Network: cluster},
	}
}

// forwardAction inserts a rule at the head of a chain, or removes one.
type forwardAction struct {
	Remove bool
	Rule   forwardRule
	Reason string
}

// planForward returns what lets the Pods' packets pass in a chain. Without a cluster all rules go.
func planForward(cluster netip.Prefix, c forwardChain) []forwardAction {
	var actions []forwardAction
	var missing []forwardRule
	reason := "the chain drops what no rule accepts"
	switch {
	case !cluster.IsValid():
		reason = "the node is taken down"
	case !c.Drops:
		reason = "the chain drops nothing"
	default:
		missing = forwardRules(cluster)
	}
	for _, r := range c.Ours {
		i := slices.IndexFunc(missing, func(m forwardRule) bool { return m.Comment == r.Comment })
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
