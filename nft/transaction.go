package nft

import (
	"fmt"
	"slices"
	"strings"
)

// Transaction is what is committed together, to one table. Its methods append an operation each.
type Transaction struct {
	Table      TableName
	Operations []Operation
}

// Operation is one step of a Transaction.
type Operation struct {
	Do       Do
	Chain    Chain // its rules are added by operations of their own
	Rule     Rule  // of Chain
	Set      Set
	Elements []Element // of Set
}

// Do is what an operation does.
type Do string

// The operations. Adding a table, chain or set that is there is none; deleting what is not there
// makes the transaction fail, as does adding an element that is there with another value.
const (
	AddTable       Do = "add table"
	DeleteTable    Do = "delete table"
	AddChain       Do = "add chain"
	FlushChain     Do = "flush chain"
	DeleteChain    Do = "delete chain"
	AddRule        Do = "add rule"
	InsertRule     Do = "insert rule" // at the head of the chain
	DeleteRule     Do = "delete rule" // by its handle
	AddSet         Do = "add set"
	DeleteSet      Do = "delete set"
	AddElements    Do = "add element"
	DeleteElements Do = "delete element"
)

// Append appends operations.
func (t *Transaction) Append(ops ...Operation) { t.Operations = append(t.Operations, ops...) }

// Empty reports whether there is nothing to commit.
func (t *Transaction) Empty() bool { return len(t.Operations) == 0 }

// Remove deletes the table, whether it is there or not.
func (t *Transaction) Remove() { t.Append(Operation{Do: AddTable}, Operation{Do: DeleteTable}) }

// Create adds a table with all that is in it.
func (t *Transaction) Create(table Table) {
	t.Append(Operation{Do: AddTable})
	for _, s := range table.Sets {
		t.Append(Operation{Do: AddSet, Set: s})
	}
	t.AddChains(table.Chains...)
	for _, s := range table.Sets {
		t.AddElements(s, table.Elements[s.Name]...)
	}
}

// AddChains adds chains and their rules, which may lead to one another in any order.
func (t *Transaction) AddChains(chains ...Chain) {
	for _, c := range chains {
		t.Append(Operation{Do: AddChain, Chain: Chain{Name: c.Name, Base: c.Base}})
	}
	for _, c := range chains {
		for _, r := range c.Rules {
			t.Append(Operation{Do: AddRule, Chain: Chain{Name: c.Name}, Rule: r})
		}
	}
}

// AddElements adds elements to a set.
func (t *Transaction) AddElements(s Set, elements ...Element) {
	if len(elements) > 0 {
		t.Append(Operation{Do: AddElements, Set: s, Elements: elements})
	}
}

// DeleteElements deletes elements from a set.
func (t *Transaction) DeleteElements(s Set, elements ...Element) {
	if len(elements) > 0 {
		t.Append(Operation{Do: DeleteElements, Set: s, Elements: elements})
	}
}

// Diff returns the transaction that makes want of have: of what was last written, or of what Read
// found. A table without a name is none, on either side. Where the kernel cannot change something
// in place (a set's types, a chain's hook), the table is replaced.
func Diff(have, want Table) Transaction {
	switch {
	case want.TableName == TableName{}:
		t := Transaction{Table: have.TableName}
		if have.TableName != (TableName{}) {
			t.Remove()
		}
		return t
	case !changeable(have, want):
		t := Transaction{Table: want.TableName}
		t.Remove()
		t.Create(want)
		return t
	}
	t := Transaction{Table: want.TableName}
	oldChains, newChains := chainsByName(have), chainsByName(want)
	for _, s := range want.Sets {
		if !slices.Contains(have.Sets, s) {
			t.Append(Operation{Do: AddSet, Set: s})
		}
	}
	var changed []Chain
	for _, c := range want.Chains {
		old, exists := oldChains[c.Name]
		if exists && slices.EqualFunc(old.Rules, c.Rules, Rule.Equal) {
			continue
		}
		if exists {
			t.Append(Operation{Do: FlushChain, Chain: Chain{Name: c.Name}})
		}
		changed = append(changed, c)
	}
	t.AddChains(changed...)
	for _, s := range want.Sets {
		gone, added := difference(have.Elements[s.Name], want.Elements[s.Name])
		t.DeleteElements(s, gone...)
		t.AddElements(s, added...)
	}
	// First no rule leads there any more, then the chain goes.
	var gone []Operation
	for _, c := range have.Chains {
		if _, wanted := newChains[c.Name]; !wanted {
			t.Append(Operation{Do: FlushChain, Chain: Chain{Name: c.Name}})
			gone = append(gone, Operation{Do: DeleteChain, Chain: Chain{Name: c.Name}})
		}
	}
	for _, s := range have.Sets {
		if !slices.Contains(want.Sets, s) {
			t.DeleteElements(s, have.Elements[s.Name]...)
			t.Append(Operation{Do: DeleteSet, Set: s})
		}
	}
	t.Append(gone...)
	return t
}

// changeable reports whether one table can be made of the other without replacing it.
func changeable(have, want Table) bool {
	if have.TableName != want.TableName {
		return false
	}
	for _, s := range have.Sets {
		if slices.ContainsFunc(want.Sets, func(w Set) bool { return w.Name == s.Name && w != s }) {
			return false
		}
	}
	for _, c := range have.Chains {
		if slices.ContainsFunc(want.Chains, func(w Chain) bool { return w.Name == c.Name && w.Base != c.Base }) {
			return false
		}
	}
	return true
}

func chainsByName(t Table) map[string]Chain {
	byName := make(map[string]Chain, len(t.Chains))
	for _, c := range t.Chains {
		byName[c.Name] = c
	}
	return byName
}

// difference lists the elements to delete and those to add. Elements that rules added are neither.
func difference(have, want []Element) (gone, added []Element) {
	old := make(map[Element]bool, len(have))
	for _, e := range have {
		old[e] = true
	}
	for _, e := range want {
		if !old[e] {
			added = append(added, e)
		}
		delete(old, e)
	}
	for _, e := range have {
		if old[e] && e.Timeout == 0 {
			gone = append(gone, e)
		}
	}
	return gone, added
}

// String is the transaction in nft's syntax, a line for each operation.
func (t *Transaction) String() string {
	var b strings.Builder
	for _, o := range t.Operations {
		switch o.Do {
		case AddTable, DeleteTable:
			fmt.Fprintf(&b, "%s %s\n", o.Do, t.Table)
		case AddChain, FlushChain, DeleteChain:
			fmt.Fprintf(&b, "%s %s %s\n", o.Do, t.Table, o.Chain.Name)
		case AddRule, InsertRule, DeleteRule:
			fmt.Fprintf(&b, "%s %s %s %s\n", o.Do, t.Table, o.Chain.Name, o.Rule)
		case AddSet, DeleteSet:
			fmt.Fprintf(&b, "%s %s %s\n", o.Do, t.Table, o.Set.Name)
		default:
			for _, e := range o.Elements {
				fmt.Fprintf(&b, "%s %s %s { %s }\n", o.Do, t.Table, o.Set.Name, o.Set.Text(e))
			}
		}
	}
	return b.String()
}
