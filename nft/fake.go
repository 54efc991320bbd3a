package nft

import (
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Fake holds tables in memory, for tests: it applies transactions as strictly as Kernel does, and
// Send evaluates a packet. It is safe for concurrent use.
type Fake struct {
	// Local are the addresses of the host; those of 127.0.0.0/8 and ::1 are always.
	Local []netip.Addr

	mu     sync.Mutex
	tables map[TableName]*Table
	random *rand.Rand
	handle uint64
}

// NewFake is a host without tables. Its random numbers are the same in every run.
func NewFake(addresses ...netip.Addr) *Fake {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // a test wants the same numbers again
	return &Fake{Local: addresses, tables: map[TableName]*Table{}, random: random}
}

// Advance lets time pass: elements expire.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range f.tables {
		for name, elements := range t.Elements {
			for i := range elements {
				elements[i].Expires -= d
			}
			expired := func(e Element) bool { return e.Timeout > 0 && e.Expires <= 0 }
			t.Elements[name] = slices.DeleteFunc(elements, expired)
		}
	}
}

// Apply commits a transaction, or returns an error and changes nothing, as Kernel.Apply does.
func (f *Fake) Apply(t Transaction) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var table *Table
	if old := f.tables[t.Table]; old != nil {
		table = old.clone()
	}
	for _, o := range t.Operations {
		var err error
		if table, err = f.apply(table, t.Table, o); err != nil {
			return fmt.Errorf("changing nftables table %s: %s: %w", t.Table, o.Do, err)
		}
	}
	if f.tables[t.Table] = table; table == nil {
		delete(f.tables, t.Table)
	}
	return nil
}

func (t Table) clone() *Table {
	t.Sets, t.Chains, t.Elements = slices.Clone(t.Sets), slices.Clone(t.Chains), maps.Clone(t.Elements)
	return &t
}

func (f *Fake) apply(t *Table, name TableName, o Operation) (*Table, error) {
	switch {
	case o.Do == AddTable && t == nil:
		return &Table{TableName: name, Elements: map[string][]Element{}}, nil
	case o.Do == AddTable:
		return t, nil
	case t == nil:
		return nil, fs.ErrNotExist
	case o.Do == DeleteTable:
		return nil, nil
	}
	chain := slices.IndexFunc(t.Chains, func(c Chain) bool { return c.Name == o.Chain.Name })
	set := slices.IndexFunc(t.Sets, func(s Set) bool { return s.Name == o.Set.Name })
	switch o.Do {
	case AddChain:
		if chain < 0 {
			t.Chains = append(t.Chains, Chain{Name: o.Chain.Name, Base: o.Chain.Base})
		}
		return t, nil
	case AddSet:
		if set < 0 {
			t.Sets = append(t.Sets, o.Set)
		}
		return t, nil
	case FlushChain, DeleteChain, AddRule, InsertRule, DeleteRule:
		if chain < 0 {
			return nil, fmt.Errorf("chain %s: %w", o.Chain.Name, fs.ErrNotExist)
		}
		return t, f.changeChain(t, chain, o)
	}
	if set < 0 {
		return nil, fmt.Errorf("set %s: %w", o.Set.Name, fs.ErrNotExist)
	}
	return t, changeSet(t, set, o)
}

func (f *Fake) changeChain(t *Table, at int, o Operation) error {
	c := &t.Chains[at]
	if o.Do != DeleteRule {
		f.handle++
		o.Rule.Handle = f.handle
	}
	switch o.Do {
	case FlushChain:
		c.Rules = nil
	case DeleteChain:
		t.Chains = slices.Delete(t.Chains, at, at+1)
		return t.check()
	case AddRule:
		c.Rules = append(slices.Clip(c.Rules), o.Rule)
		return t.uses(o.Rule)
	case InsertRule:
		c.Rules = slices.Insert(slices.Clip(c.Rules), 0, o.Rule)
		return t.uses(o.Rule)
	case DeleteRule:
		i := slices.IndexFunc(c.Rules, func(r Rule) bool { return r.Handle == o.Rule.Handle })
		if i < 0 {
			return fs.ErrNotExist
		}
		c.Rules = slices.Delete(slices.Clone(c.Rules), i, i+1)
	}
	return nil
}

func changeSet(t *Table, at int, o Operation) error {
	s := t.Sets[at]
	if o.Do == DeleteSet {
		t.Sets = slices.Delete(t.Sets, at, at+1)
		delete(t.Elements, s.Name)
		return t.check()
	}
	// Transactions may be large: elements are found by their keys.
	elements := slices.Clone(t.Elements[s.Name])
	place := make(map[Data]int, len(elements))
	for i, e := range elements {
		place[e.Key] = i
	}
	gone := map[Data]bool{}
	for _, e := range o.Elements {
		if len(e.Key) != s.Key.width() || len(e.Value) != s.Value.width() {
			return fmt.Errorf("element %q of %s has another width than its types", s.Text(e), s)
		}
		i, exists := place[e.Key]
		switch {
		case o.Do == DeleteElements && (!exists || gone[e.Key]):
			return fmt.Errorf("element %s of %s: %w", s.Text(e), s, fs.ErrNotExist)
		case o.Do == DeleteElements:
			gone[e.Key] = true
		case exists && (elements[i].Value != e.Value || elements[i].Verdict != e.Verdict):
			return fmt.Errorf("element %s of %s: %w", s.Text(e), s, fs.ErrExist)
		case !exists:
			if err := t.leads(e.Verdict); err != nil {
				return err
			}
			e.Expires = e.Timeout
			place[e.Key] = len(elements)
			elements = append(elements, e)
		}
	}
	t.Elements[s.Name] = slices.DeleteFunc(elements, func(e Element) bool { return gone[e.Key] })
	return nil
}

// leads verifies that a verdict leads to a chain that is there.
func (t Table) leads(v Verdict) error {
	if v.Chain != "" && !slices.ContainsFunc(t.Chains, func(c Chain) bool { return c.Name == v.Chain }) {
		return fmt.Errorf("chain %s: %w", v.Chain, fs.ErrNotExist)
	}
	return nil
}

// uses verifies that the chains and sets that a rule uses are there.
func (t Table) uses(r Rule) error {
	for _, s := range r.Statements {
		if v, ok := s.(Verdict); ok && t.leads(v) != nil {
			return t.leads(v)
		}
		if name := setOf(s); name != "" && !slices.ContainsFunc(t.Sets, func(s Set) bool { return s.Name == name }) {
			return fmt.Errorf("set %s: %w", name, fs.ErrNotExist)
		}
	}
	return nil
}

// check verifies that nothing uses what was deleted.
func (t Table) check() error {
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			if err := t.uses(r); err != nil {
				return err
			}
		}
	}
	for _, elements := range t.Elements {
		for _, e := range elements {
			if err := t.leads(e.Verdict); err != nil {
				return err
			}
		}
	}
	return nil
}

// setOf is the set or map that a statement reads or changes.
func setOf(s Statement) string {
	switch s := s.(type) {
	case In:
		return s.Set
	case Dispatch:
		return s.Map
	case DNAT:
		return s.Map
	case Update:
		return s.Set
	}
	return ""
}

// Read returns a table, as Kernel.Read does.
func (f *Fake) Read(name TableName) (Table, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.tables[name]; t != nil {
		return *t.clone(), nil
	}
	return Table{}, nil
}

// Base returns what makes a chain a base chain, as Kernel.Base does.
func (f *Fake) Base(name TableName, chain string) (Base, error) {
	t, _ := f.Read(name)
	c, ok := chainsByName(t)[chain]
	if !ok {
		return Base{}, fs.ErrNotExist
	}
	return c.Base, nil
}

// Rules returns the rules of a chain, as Kernel.Rules does.
func (f *Fake) Rules(name TableName, chain string) ([]Rule, error) {
	t, _ := f.Read(name)
	return chainsByName(t)[chain].Rules, nil
}

// Elements returns the elements of a set, as Kernel.Elements does.
func (f *Fake) Elements(name TableName, s Set) ([]Element, error) {
	t, _ := f.Read(name)
	elements, ok := t.Elements[s.Name]
	if !ok && !slices.Contains(t.Sets, s) {
		return nil, fs.ErrNotExist
	}
	return elements, nil
}
