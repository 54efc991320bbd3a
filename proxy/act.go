package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"

	"flyball.dev/nft"
)

// kernel has the methods of nft.Kernel that the proxy needs. In tests it is an nft.Fake.
type kernel interface {
	// Apply commits a transaction as a whole or not at all. Its error is fs.ErrNotExist if the
	// table, or an element to be deleted, does not exist.
	Apply(t nft.Transaction) error
	Base(table nft.TableName, chain string) (nft.Base, error)
	Rules(table nft.TableName, chain string) ([]nft.Rule, error)
	Elements(table nft.TableName, set nft.Set) ([]nft.Element, error)
}

// table writes changes.
type table struct {
	cfg    Config
	fam    *family
	kernel kernel
	name   nft.TableName
	chains map[uint32]string // by the number of their class
	shift  int32             // of the chains' priorities
}

func newTable(cfg Config, k kernel) *table {
	f := ipv4()
	return &table{cfg: cfg, fam: f, kernel: k, name: f.table(), chains: map[uint32]string{}}
}

// apply writes a change. It fails with fs.ErrNotExist if another program removed the table.
//
// New classes go first, in a transaction of their own: a packet sees the rules of one generation,
// but elements as they are at the time of the lookup. A packet under way during the transaction
// would follow a new element to a chain whose rules it does not see yet, and be refused.
func (t *table) apply(c Change) error {
	classes, elements := t.transaction(), t.transaction()
	t.addClasses(&classes, c)
	t.changeElements(&elements, c)
	for _, tx := range []nft.Transaction{classes, elements} {
		if err := t.kernel.Apply(tx); err != nil {
			return err
		}
	}
	return t.unbind(t.bindings(c.Unbind))
}

func (t *table) transaction() nft.Transaction { return nft.Transaction{Table: t.name} }

// unbind deletes the session affinity of clients whose endpoints are gone. No rule leads to such an
// endpoint any more, so no client is bound to it again. Without unbind, clients would go back to
// the endpoint when it returns.
func (t *table) unbind(gone map[nft.Data]bool) error {
	for len(gone) > 0 {
		bound, err := t.bound(gone)
		if err != nil {
			return err
		}
		tx := t.transaction()
		tx.DeleteElements(clients(t.fam), bound...)
		// If one element expired since it was read, the kernel refuses the whole deletion.
		if err := t.kernel.Apply(tx); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// bindings returns, for endpoints of frontends, their keys in the set of known clients, without the
// client.
func (t *table) bindings(elements []Element) map[nft.Data]bool {
	names := map[nft.Data]bool{}
	for _, e := range elements {
		if e.Sticky {
			hash := bindingHash(List(e.Index/localIndex), netip.AddrPortFrom(e.Value.Addr.addr(), e.Value.Port))
			names[nft.Data(nft.AppendUint32(e.frontend(t.fam, nil), hash))] = true
		}
	}
	return names
}

// bound reads which clients are bound to the named endpoints, each with its remaining timeout.
func (t *table) bound(names map[nft.Data]bool) ([]nft.Element, error) {
	elements, err := t.kernel.Elements(t.name, clients(t.fam))
	if err != nil {
		return nil, fmt.Errorf("reading session affinity: %w", err)
	}
	var found []nft.Element
	for _, e := range elements {
		if e.Expires > 0 && names[e.Key[t.fam.size():]] {
			found = append(found, nft.Element{Key: e.Key, Timeout: e.Expires})
		}
	}
	return found, nil
}

// rebuild replaces the table by one with all. There is no moment without rules, and session
// affinity is kept.
func (t *table) rebuild(all Change) error {
	// This fails if there is no table, or one of another version: then affinity is lost, not
	// Services.
	remembered, _ := t.bound(t.bindings(all.Add))
	t.shift = t.nextShift()
	clear(t.chains)
	tx := t.transaction()
	tx.Remove()
	tx.Create(nft.Table{Sets: sets(t.fam), Chains: t.fixedChains()})
	t.addClasses(&tx, all) // elements refer to them
	t.changeElements(&tx, all)
	tx.AddElements(clients(t.fam), remembered...)
	if err := t.kernel.Apply(tx); err != nil {
		return fmt.Errorf("writing all Services (root and Linux 5.9 or later with nf_tables and NAT are needed): %w",
			err)
	}
	return nil
}

func (t *table) fixedChains() []nft.Chain { return fixedChains(t.fam, t.cfg.ServiceCIDRs, t.shift) }

// shifts is the number of priorities that successive tables use in turn.
const shifts = 40

// nextShift puts the chains of a new table right behind those of the old one. While the kernel
// commits, both are registered at their hooks, and each shows a packet the rules of one generation.
// In the other order a packet could pass the new chain before the commit and the old one after it,
// and be translated by neither.
func (t *table) nextShift() int32 {
	old, err := t.kernel.Base(t.name, natPrerouting)
	if err != nil || old == (nft.Base{}) {
		return 0
	}
	return (old.Priority - nft.PriorityDstNAT + 1) % shifts
}

// remove deletes the table, if it is there.
func (t *table) remove() error {
	tx := t.transaction()
	tx.Remove()
	return t.kernel.Apply(tx)
}

// addClasses adds the chains of new classes.
func (t *table) addClasses(tx *nft.Transaction, c Change) {
	for _, m := range c.Classes {
		name := m.Class.chain()
		t.chains[m.Number] = name
		if name != rejectChain && name != dropChain { // these two are fixed chains
			tx.AddChains(nft.Chain{Name: name, Rules: m.Class.rules(t.fam, t.cfg.ClusterCIDRs)})
		}
	}
}

// changeElements deletes before it adds, because a value is changed by replacing its element.
func (t *table) changeElements(tx *nft.Transaction, c Change) {
	deleted, added := t.byMap(c.Delete), t.byMap(c.Add)
	for m := range mapCount {
		tx.DeleteElements(m.set(t.fam), deleted[m]...)
	}
	for m := range mapCount {
		tx.AddElements(m.set(t.fam), added[m]...)
	}
}

// byMap compiles elements.
func (t *table) byMap(elements []Element) (all [mapCount][]nft.Element) {
	var count [mapCount]int
	for _, e := range elements {
		count[e.Map]++
	}
	for m := range mapCount {
		all[m] = make([]nft.Element, 0, count[m])
	}
	for _, e := range elements {
		all[e.Map] = append(all[e.Map], e.compile(t.fam, t.chains))
	}
	return all
}

// intact compares the table in the kernel with what it should be, by numbers: of rules in the fixed
// chains and of elements in each map.
func (t *table) intact(want [mapCount]int) bool {
	for _, c := range t.fixedChains() {
		found, err := t.kernel.Rules(t.name, c.Name)
		if err != nil || len(found) != len(c.Rules) {
			return false // a table that cannot be read is written again
		}
	}
	for m := range mapCount {
		elements, err := t.kernel.Elements(t.name, m.set(t.fam))
		if err != nil || len(elements) != want[m] {
			return false
		}
	}
	return true
}

// frontends reads all frontends from the table: none if there is no table.
func (t *table) frontends() map[frontend]bool {
	found := map[frontend]bool{}
	for _, m := range []Map{Frontends, HostPorts} {
		elements, _ := t.kernel.Elements(t.name, m.set(t.fam))
		for _, e := range elements {
			n := t.fam.size()
			if len(e.Key) != n+8 { // of another version
				continue
			}
			addr, _ := netip.AddrFromSlice([]byte(e.Key[:n]))
			port := binary.BigEndian.Uint16([]byte(e.Key[n+4:]))
			found[frontend{toIP(addr), Protocol(e.Key[n]), port}] = true
		}
	}
	return found
}
