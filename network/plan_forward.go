package network

import (
	"fmt"
	"net/netip"
	"slices"
)

// forwardMark begins the comment of each rule that we put into somebody else's chain. What follows is the rule.
const forwardMark = "flyball: "

// ForwardChain is a chain of somebody else's that forwarded packets pass: Docker, ufw and firewalld have such chains. An
// accept in a chain of our own is no help, since a packet must pass all of them.
type ForwardChain struct {
	// Inet chains see IPv6 as well, others IPv4 alone.
	Inet        bool
	Table, Name string
	// Drops is set if packets that no rule accepts are dropped or rejected.
	Drops bool
	// Ours are the rules in it that are marked as ours.
	Ours []ForwardRule
}

func (c ForwardChain) String() string {
	family := "ip"
	if c.Inet {
		family = "inet"
	}
	return fmt.Sprintf("chain %s of table %s %s", c.Name, family, c.Table)
}

// ForwardRule accepts packets from the network, or to it.
type ForwardRule struct {
	Comment string
	Handle  uint64 // the kernel's; 0 for a rule that is yet to be
	From    bool
	Network netip.Prefix
}

// forwardRules are those that a chain needs which drops.
func forwardRules(cluster netip.Prefix) []ForwardRule {
	return []ForwardRule{
		{Comment: forwardMark + "from Pods in " + cluster.String(), From: true, Network: cluster},
		{Comment: forwardMark + "to Pods in " + cluster.String(), Network: cluster},
	}
}

// forwardAction inserts a rule at the head of a chain, or removes one.
type forwardAction struct {
	Remove bool
	Chain  ForwardChain
	Rule   ForwardRule
	Reason string
}

// planForward returns what lets the Pods' packets pass. Without a cluster all rules go.
func planForward(cluster netip.Prefix, chains []ForwardChain) []forwardAction {
	var actions []forwardAction
	for _, c := range chains {
		var missing []ForwardRule
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
			i := slices.IndexFunc(missing, func(m ForwardRule) bool { return m.Comment == r.Comment })
			if i < 0 { // not wanted, or there twice
				actions = append(actions, forwardAction{Remove: true, Chain: c, Rule: r, Reason: reason})
				continue
			}
			missing = slices.Delete(missing, i, i+1)
		}
		for _, r := range missing {
			actions = append(actions, forwardAction{Chain: c, Rule: r, Reason: reason})
		}
	}
	return actions
}
