// Package nft is the kernel's packet filter, nftables, as plain values. It is the only package that
// imports a library for it.
//
//	table.go        a table with its chains and rules
//	set.go          sets, maps, their elements, and the bytes of keys and values
//	statement.go    what a rule consists of; prints in nft's syntax
//	field.go        what a statement reads of a packet
//	transaction.go  operations that are committed together; Diff derives them from two tables
//	kernel.go       Kernel commits a transaction over netlink
//	read.go         Kernel reads tables, rules and elements back
//	compile.go      statements to the kernel's expressions, and decompile.go back
//	watch.go        events of changes by other programs
//	conntrack.go    the connections that rules have already decided
//	fake.go         Fake holds the same state in memory, and packet.go sends packets through it
//
// For example, a table that masquerades what leaves 10.42.0.0/16:
//
//	table := nft.Table{TableName: name, Chains: []nft.Chain{{
//		Name: "postrouting", Base: nft.Base{Type: nft.NAT, Hook: nft.Postrouting, Priority: nft.PrioritySrcNAT},
//		Rules: []nft.Rule{nft.R(nft.SourceIn(pods), nft.Not(nft.DestinationIn(pods)), nft.Masquerade{})},
//	}}}
//	err := nft.Kernel{}.Apply(nft.Diff(have, table))
//
// where have is the table that was written before, or that Kernel.Read returned. In a test, a Fake
// takes the place of the Kernel. Sets, elements and statements compare with ==, rules with Equal.
//
// A packet sees the rules of one generation, but elements as they are at the time of the lookup. A
// packet under way during a transaction may therefore follow a new element to a chain whose rules
// it does not see. Where that matters, add the chains in one transaction and the elements in the
// next.
//
// The package imports none of Flyball's other packages.
package nft
