// Package nft is the kernel's packet filter, nftables, as plain values. It is the only package that
// imports a library for it.
//
//	table.go        a table with its chains and rules
//	set.go          sets, maps, their elements, and the bytes of which elements consist
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
// A user describes what it wants as a Table, obtains a Transaction (Diff compares with what it wrote
// before or with what Kernel.Read returns) and hands it to Apply, of a Kernel or, in a test, of a
// Fake. Everything compares with ==, or with Equal where a value holds a list.
//
// Packets see the rules of one generation, but elements as they are at the time of the lookup. A
// packet under way during a transaction may therefore follow a new element to a chain whose rules it
// does not see. Where that matters, add the chains in one transaction and the elements in the next.
//
// The package imports none of Flyball's other packages.
package nft
