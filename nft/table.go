package nft

import (
	"fmt"
	"slices"
	"strings"
)

// Family says which packets a table sees.
type Family uint8

// IPv4, IPv6, or both. In a table for both, a rule that reads an address begins with OfFamily.
const (
	IPv4 Family = iota
	IPv6
	Inet
)

func (f Family) String() string { return [...]string{"ip", "ip6", "inet"}[f] }

// TableName identifies a table.
type TableName struct {
	Family Family
	Name   string
}

func (t TableName) String() string { return t.Family.String() + " " + t.Name }

// Table is a table with all that is in it.
type Table struct {
	TableName
	Sets     []Set
	Chains   []Chain
	Elements map[string][]Element // by set
}

// Chain is a list of rules. A base chain has a hook, other chains are jumped to.
type Chain struct {
	Name string
	Base
	Rules []Rule
}

// Base is what makes a chain a base chain; its zero value is none.
type Base struct {
	Type     ChainType
	Hook     Hook
	Priority int32
	// DropByDefault is the policy for packets that no rule decides.
	DropByDefault bool
}

// ChainType is what a base chain is for.
type ChainType string

// The types of base chains that Flyball uses. A NAT chain sees the first packet of a connection
// only.
const (
	Filter ChainType = "filter"
	NAT    ChainType = "nat"
)

// Hook is where packets enter a base chain.
type Hook string

// The hooks.
const (
	Prerouting  Hook = "prerouting"
	Input       Hook = "input"
	Forward     Hook = "forward"
	Output      Hook = "output"
	Postrouting Hook = "postrouting"
)

// Priorities of base chains, as nft names them.
const (
	PriorityRaw    = -300
	PriorityDstNAT = -100
	PriorityFilter = 0
	PrioritySrcNAT = 100
)

func (b Base) String() string {
	s := fmt.Sprintf("type %s hook %s priority %d", b.Type, b.Hook, b.Priority)
	if b.DropByDefault {
		s += " policy drop"
	}
	return s
}

// Rule is a list of statements: the first that does not match ends it.
type Rule struct {
	Statements []Statement
	Comment    string
	// Handle is the kernel's name of a rule that was read; 0 in one that is to be added.
	Handle uint64
}

// R is a rule without a comment.
func R(statements ...Statement) Rule { return Rule{Statements: statements} }

func (r Rule) String() string {
	words := make([]string, 0, len(r.Statements)+1)
	for _, s := range r.Statements {
		words = append(words, s.String())
	}
	if r.Comment != "" {
		words = append(words, fmt.Sprintf("comment %q", r.Comment))
	}
	return strings.Join(words, " ")
}

// Equal compares rules without their handles.
func (r Rule) Equal(o Rule) bool {
	return r.Comment == o.Comment && slices.Equal(r.Statements, o.Statements)
}

// String is the table in nft's syntax.
func (t Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", t.TableName)
	for _, s := range t.Sets {
		fmt.Fprintf(&b, "  %s {\n", s)
		for _, e := range t.Elements[s.Name] {
			fmt.Fprintf(&b, "    %s\n", s.Text(e))
		}
		b.WriteString("  }\n")
	}
	for _, c := range t.Chains {
		fmt.Fprintf(&b, "  chain %s {\n", c.Name)
		if c.Base != (Base{}) {
			fmt.Fprintf(&b, "    %s\n", c.Base)
		}
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "    %s\n", r)
		}
		b.WriteString("  }\n")
	}
	b.WriteString("}\n")
	return b.String()
}
