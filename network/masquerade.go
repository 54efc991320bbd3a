package network

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

const tableName = "flyball-network"

// ruleset is a whole nftables table, as a value.
type ruleset struct {
	table  *nftables.Table
	chains []chain
}

type chain struct {
	*nftables.Chain
	rules []rule
}

// rule is one rule with its text in nft's syntax, which tests and people read.
type rule struct {
	text  string
	exprs []expr.Any
}

// masquerade returns the table that gives Pod traffic to the world the node's address: nobody outside of the cluster has
// a route back to a Pod. Traffic to Pods keeps its source, wherever they are. Multicast is left alone.
func masquerade(cluster netip.Prefix) ruleset {
	table := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: tableName}
	accept := nftables.ChainPolicyAccept
	multicast := netip.MustParsePrefix("224.0.0.0/4")
	exprs := matchNetwork(saddrOffset, cluster, expr.CmpOpEq)
	exprs = append(exprs, matchNetwork(daddrOffset, cluster, expr.CmpOpNeq)...)
	exprs = append(exprs, matchNetwork(daddrOffset, multicast, expr.CmpOpNeq)...)
	exprs = append(exprs, &expr.Masq{FullyRandom: true}) // two Pods on one port would wait for each other's ports
	return ruleset{table: table, chains: []chain{{
		Chain: &nftables.Chain{
			Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting,
			Priority: nftables.ChainPriorityNATSource, Policy: &accept,
		},
		rules: []rule{{
			text:  fmt.Sprintf("ip saddr %s ip daddr != %s ip daddr != %s masquerade fully-random", cluster, cluster, multicast),
			exprs: exprs,
		}},
	}}}
}

// Offsets of the addresses in an IPv4 header.
const (
	saddrOffset = 12
	daddrOffset = 16
)

func matchNetwork(offset uint32, p netip.Prefix, op expr.CmpOp) []expr.Any {
	network := p.Masked().Addr().As4()
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - p.Bits())), Xor: make([]byte, 4)},
		&expr.Cmp{Op: op, Register: 1, Data: network[:]},
	}
}

// applyRuleset replaces the table in one transaction.
func applyRuleset(r ruleset) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	conn.AddTable(r.table) // so that there is one to delete
	conn.DelTable(r.table)
	conn.AddTable(r.table)
	for _, c := range r.chains {
		conn.AddChain(c.Chain)
		for _, rule := range c.rules {
			conn.AddRule(&nftables.Rule{Table: r.table, Chain: c.Chain, Exprs: rule.exprs})
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("writing nftables table %s: %w; the kernel needs nf_tables, nft_chain_nat and nft_masq", r.table.Name, err)
	}
	return nil
}

func removeRuleset(name string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening nftables: %w", err)
	}
	conn.DelTable(&nftables.Table{Family: nftables.TableFamilyIPv4, Name: name})
	if err := conn.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing nftables table %s: %w", name, err)
	}
	return nil
}
