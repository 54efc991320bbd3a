package network

import (
	"net/netip"

	"flyball.dev/nft"
)

// tableName is the nftables table of this package.
const tableName = "flyball-network"

var multicast = netip.MustParsePrefix("224.0.0.0/4")

// masquerade is the table that gives Pod traffic to the world the node's address: no host outside
// of the cluster has a route back to a Pod. Traffic to Pods keeps its source, wherever they are.
// Multicast is left alone.
func masquerade(clusters []netip.Prefix) nft.Table {
	base := nft.Base{Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT}
	c := nft.Chain{Name: "postrouting", Base: base}
	for _, source := range clusters {
		statements := []nft.Statement{nft.SourceIn(source)}
		for _, cluster := range clusters {
			statements = append(statements, nft.Not(nft.DestinationIn(cluster)))
		}
		// fully-random: two Pods on one port would wait for each other's ports.
		statements = append(statements, nft.Not(nft.DestinationIn(multicast)), nft.Masquerade{FullyRandom: true})
		c.Rules = append(c.Rules, nft.R(statements...))
	}
	return nft.Table{TableName: masqueradeTable, Chains: []nft.Chain{c}}
}

var masqueradeTable = nft.TableName{Family: nft.IPv4, Name: tableName}
