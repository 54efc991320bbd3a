package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	mdnetlink "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// syncForward lets packets from and to Pods pass where another program drops what is forwarded.
// Without a cluster it takes that back. What fails in one chain keeps no other back.
func syncForward(log klog.Logger, cluster netip.Prefix) error {
	chains, err := observeForward(cluster)
	errs := []error{err}
	for _, c := range chains {
		actions := planForward(cluster, c)
		for _, a := range actions {
			log.V(2).Info("Changing a firewall's chain", "chain", c.String(), "rule", a.Rule.Comment, "remove", a.Remove, "reason", a.Reason)
		}
		errs = append(errs, actForward(c, actions))
	}
	return errors.Join(errs...)
}

// observeForward reads the chains of the forward hook that drop, or have rules of ours.
func observeForward(cluster netip.Prefix) ([]forwardChain, error) {
	chains, err := observeHook(*nftables.ChainHookForward)
	var found []forwardChain
	for _, c := range chains {
		source := netip.Prefix{}
		if c.Owned {
			source = cluster // no rule of ours is there, and the firewall may accept packets of Pods itself
		}
		chain := forwardChain{FirewallChain: c.FirewallChain, Drops: drops(c.policy, c.rules, source, c.jump)}
		for _, r := range c.rules {
			if comment, ok := userdata.GetString(r.UserData, userdata.TypeComment); ok && strings.HasPrefix(comment, forwardMark) {
				chain.Ours = append(chain.Ours, forwardRule{Comment: comment, Handle: r.Handle})
			}
		}
		// The proxy's own chains are of the same hook, and drop nothing that is not theirs.
		if chain.Drops || len(chain.Ours) > 0 {
			found = append(found, chain)
		}
	}
	return found, err
}

// actForward changes a chain. Each rule is a transaction, so that one which has gone keeps no other
// in its place. If the chain has gone, an event says so.
func actForward(c forwardChain, actions []forwardAction) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	family := nftables.TableFamilyIPv4
	if c.Inet {
		family = nftables.TableFamilyINet
	}
	table := &nftables.Table{Name: c.Table, Family: family}
	for _, a := range actions {
		rule := &nftables.Rule{Table: table, Chain: &nftables.Chain{Name: c.Name, Table: table}, Handle: a.Rule.Handle}
		if a.Remove {
			if err := conn.DelRule(rule); err != nil {
				return fmt.Errorf("removing a rule from %s: %w", c, err)
			}
		} else {
			rule.Exprs = forwardExprs(c, a.Rule)
			rule.UserData = userdata.AppendString(nil, userdata.TypeComment, a.Rule.Comment)
			conn.InsertRule(rule)
		}
		switch err := conn.Flush(); {
		case err == nil, errors.Is(err, unix.ENOENT):
		case errors.Is(err, unix.EPERM):
			return fmt.Errorf("letting the packets of Pods pass in %s: %w; the program that made the table owns it: "+
				"for firewalld, set NftablesTableOwner=no in /etc/firewalld/firewalld.conf and restart it, or have it accept clusterCIDR itself", c, err)
		default:
			return fmt.Errorf("letting the packets of Pods pass in %s: %w", c, err)
		}
	}
	return nil
}

// forwardExprs are such as iptables has, too, so that iptables-nft still reads its chain.
func forwardExprs(c forwardChain, r forwardRule) []expr.Any {
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

// firewallEvents are the events of nftables after which a chain may drop, or a rule of ours be
// gone. The many about elements of sets are not among them.
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
