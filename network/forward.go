package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// legacyTables names the tables of iptables-legacy, which nftables neither shows nor changes.
const legacyTables = "/proc/net/ip_tables_names"

// Forwarding lists the chains that drop forwarded packets, which a node lets those of Pods pass. legacy says that
// iptables-legacy has a filter of its own, in which nothing can be read or changed from here.
func Forwarding() (dropping []string, legacy bool, err error) {
	chains, err := observeForward()
	for _, c := range chains {
		if c.Drops {
			dropping = append(dropping, c.String())
		}
	}
	names, _ := os.ReadFile(legacyTables)
	return dropping, slices.Contains(strings.Fields(string(names)), "filter"), err
}

// syncForward lets packets from and to Pods pass where somebody drops what is forwarded. Without a cluster it takes that
// back.
func syncForward(log klog.Logger, cluster netip.Prefix) error {
	chains, err := observeForward()
	if err != nil {
		return err
	}
	actions := planForward(cluster, chains)
	if len(actions) == 0 {
		return nil
	}
	for _, a := range actions {
		log.V(2).Info("Changing a firewall's chain", "chain", a.Chain.String(), "rule", a.Rule.Comment, "remove", a.Remove, "reason", a.Reason)
	}
	return actForward(actions)
}

// observeForward reads the chains of the forward hook that drop, or have rules of ours.
func observeForward() ([]ForwardChain, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("opening nftables: %w", err)
	}
	var found []ForwardChain
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyINet} {
		chains, err := conn.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("listing the chains of nftables: %w", err)
		}
		for _, c := range chains {
			if c.Type != nftables.ChainTypeFilter || c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward {
				continue
			}
			rules, err := conn.GetRules(c.Table, c)
			if errors.Is(err, unix.ENOENT) {
				continue // it has gone meanwhile, which is an event
			}
			if err != nil {
				return nil, fmt.Errorf("listing the rules of chain %s of table %s: %w", c.Name, c.Table.Name, err)
			}
			chain := ForwardChain{Inet: family == nftables.TableFamilyINet, Table: c.Table.Name, Name: c.Name, Drops: drops(c, rules)}
			for _, r := range rules {
				if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && strings.HasPrefix(comment, forwardMark) {
					chain.Ours = append(chain.Ours, ForwardRule{Comment: comment, Handle: r.Handle})
				}
			}
			// The proxy's own chains are of the same hook, and drop nothing that is not theirs.
			if chain.Drops || len(chain.Ours) > 0 {
				found = append(found, chain)
			}
		}
	}
	return found, nil
}

// drops says whether a chain drops what none of its rules accepts: by its policy, as Docker's and ufw's, or by its last
// rule, as firewalld's.
func drops(c *nftables.Chain, rules []*nftables.Rule) bool {
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		return true
	}
	if len(rules) == 0 {
		return false
	}
	end := false
	for _, e := range rules[len(rules)-1].Exprs {
		switch e := e.(type) {
		case *expr.Counter, *expr.Log:
		case *expr.Reject:
			end = true
		case *expr.Verdict:
			end = e.Kind == expr.VerdictDrop
		default:
			return false // it drops some packets only
		}
	}
	return end
}

func actForward(actions []forwardAction) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	for _, a := range actions {
		family := nftables.TableFamilyIPv4
		if a.Chain.Inet {
			family = nftables.TableFamilyINet
		}
		table := &nftables.Table{Name: a.Chain.Table, Family: family}
		rule := &nftables.Rule{Table: table, Chain: &nftables.Chain{Name: a.Chain.Name, Table: table}, Handle: a.Rule.Handle}
		if a.Remove {
			if err := conn.DelRule(rule); err != nil {
				return fmt.Errorf("removing a rule of ours from %s: %w", a.Chain, err)
			}
			continue
		}
		rule.Exprs = forwardExprs(a.Chain, a.Rule)
		rule.UserData = userdata.AppendString(nil, userdata.TypeComment, a.Rule.Comment)
		conn.InsertRule(rule)
	}
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) { // a chain that has gone is an event
		return fmt.Errorf("letting the packets of Pods pass in %s: %w", actions[0].Chain, err)
	}
	return nil
}

// forwardExprs are such as iptables has, too, so that iptables-nft still reads its chain.
func forwardExprs(c ForwardChain, r ForwardRule) []expr.Any {
	var exprs []expr.Any
	if c.Inet {
		exprs = append(exprs, &expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.NFPROTO_IPV4}})
	}
	offset := uint32(daddrOffset)
	if r.From {
		offset = saddrOffset
	}
	exprs = append(exprs, matchNetwork(offset, r.Network, expr.CmpOpEq)...)
	return append(exprs, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
}

// firewallEvents are the events of nftables after which a chain may drop, or a rule of ours be gone. The many about
// elements of sets are not among them.
var firewallEvents = []uint16{unix.NFT_MSG_NEWTABLE, unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWCHAIN, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE}

// subscribe returns the events of nftables in this network namespace from now on.
func subscribe() (*mdnetlink.Conn, error) {
	conn, err := mdnetlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("opening netfilter's events: %w", err)
	}
	if err := conn.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribing to the events of nftables: %w", err), conn.Close())
	}
	return conn, nil
}

// watchFirewall calls changed after a firewall has changed, until ctx ends, and closes conn.
func watchFirewall(ctx context.Context, conn *mdnetlink.Conn, changed func()) error {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer func() {
		if stop() {
			_ = conn.Close()
		}
	}()
	for {
		messages, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS): // some were lost
			changed()
		case err != nil:
			return fmt.Errorf("receiving the events of nftables: %w", err)
		case slices.ContainsFunc(messages, isFirewallEvent):
			changed()
		}
	}
}

func isFirewallEvent(m mdnetlink.Message) bool {
	kind := uint16(m.Header.Type)
	return kind>>8 == unix.NFNL_SUBSYS_NFTABLES && slices.Contains(firewallEvents, kind&0xff)
}
