package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	mdnetlink "github.com/mdlayher/netlink"
)

// kernel writes the table in netlink transactions, each of which the kernel carries out as a whole
// or not at all.
type kernel struct {
	cfg    Config
	fam    *family
	table  *nftables.Table
	sets   []*nftables.Set
	chains map[uint32]string // by the number of their class
	turn   int32             // of the chains' priorities
	netns  int               // file descriptor of a network namespace; 0: the process's own
}

func newKernel(cfg Config, netns int) *kernel {
	f := ipv4()
	table := &nftables.Table{Name: tableName, Family: f.table}
	return &kernel{cfg: cfg, fam: f, table: table, sets: sets(f, table), chains: map[uint32]string{}, netns: netns}
}

// Netlink carries a whole transaction in one message to the socket, so that is what its buffers
// must hold; an attribute, such as a list of elements, is limited to 64 KiB.
const (
	sendBuffer   = 128 << 20
	answerBuffer = 16 << 20
	chunk        = 500
)

func (k *kernel) conn() (*nftables.Conn, error) {
	return nftables.New(nftables.WithNetNSFd(k.netns), nftables.WithSockOptions(
		func(c *mdnetlink.Conn) error { return c.SetWriteBuffer(sendBuffer) },
		func(c *mdnetlink.Conn) error { return c.SetReadBuffer(answerBuffer) },
	))
}

// apply carries a change out. It fails with fs.ErrNotExist if somebody took the table away.
//
// New classes go first, by themselves: a packet reads the rules of one generation, but elements as
// they are when it looks for them. One that is on its way during the transaction would follow a new
// element to a chain that for it has no rules yet, and be refused.
func (k *kernel) apply(c Change) error {
	conn, err := k.conn()
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	k.writeClasses(conn, c)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("adding classes to nftables table %s: %w", tableName, err)
	}
	if err := k.writeElements(conn, c); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("changing nftables table %s: %w", tableName, err)
	}
	return k.unbind(conn, k.bindings(c.Unbind))
}

// unbind lets clients forget endpoints. No rule leads there any more, so that none is bound again;
// without it they would return with the endpoint.
func (k *kernel) unbind(conn *nftables.Conn, gone map[string]bool) error {
	for len(gone) > 0 {
		elements, err := k.affinity(conn, func(binding string) bool { return gone[binding] })
		if err != nil {
			return fmt.Errorf("reading session affinity: %w", err)
		}
		if err := inPieces(k.sets[mapCount], elements, conn.SetDeleteElements); err != nil {
			return err
		}
		// If one expired since it was read, the kernel refuses them all.
		if err := conn.Flush(); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// bindings lists how the set of known clients names endpoints of frontends.
func (k *kernel) bindings(elements []Element) map[string]bool {
	names := map[string]bool{}
	for _, e := range elements {
		if e.Sticky {
			hash := bindingHash(List(e.Index/localIndex), netip.AddrPortFrom(e.Value.Addr.addr(), e.Value.Port))
			names[string(append(e.frontend(k.fam), register32(hash)...))] = true
		}
	}
	return names
}

// rebuild replaces the table by what all describes. There is no moment without rules, and session
// affinity is carried over.
func (k *kernel) rebuild(all Change) error {
	conn, err := k.conn()
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	// If that fails, because another version of the table lies there, or none, it is better to lose
	// affinity than Services.
	wanted := k.bindings(all.Add)
	remembered, _ := k.affinity(conn, func(binding string) bool { return wanted[binding] })
	k.turn = turn(conn, k.table)
	conn.AddTable(k.table) // so that there is one to delete
	conn.DelTable(k.table)
	conn.AddTable(k.table)
	clear(k.chains)
	for _, s := range k.sets {
		if err := conn.AddSet(s, nil); err != nil {
			return fmt.Errorf("declaring set %s: %w", s.Name, err)
		}
	}
	chains := baseChains(k.fam, k.cfg.ServiceCIDR)
	for _, c := range chains {
		conn.AddChain(k.chain(c))
	}
	for _, c := range chains {
		k.addRules(conn, c)
	}
	k.writeClasses(conn, all) // elements refer to them
	if err := k.writeElements(conn, all); err != nil {
		return err
	}
	if err := inPieces(k.sets[mapCount], remembered, conn.SetAddElements); err != nil {
		return err
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("writing nftables table %s (root and a kernel of 5.9 or later with nf_tables and NAT are needed): %w", tableName, err)
	}
	return nil
}

// turns is how many different priorities the tables of successive lives have.
const turns = 40

// turn puts the chains of a new table right behind those of the old one. Both are hooked up while
// the kernel changes over, each seeing its rules by what generation it reads; in the other order a
// packet could pass the new chain before and the old one after that moment, and be translated by
// neither.
func turn(conn *nftables.Conn, table *nftables.Table) int32 {
	old, err := conn.ListChain(table, natPrerouting)
	if err != nil || old.Priority == nil {
		return 0
	}
	return (int32(*old.Priority) - dstnat + 1) % turns
}

// remove takes the table away, if it is there.
func (k *kernel) remove() error {
	conn, err := k.conn()
	if err != nil {
		return fmt.Errorf("opening netlink: %w", err)
	}
	conn.AddTable(k.table)
	conn.DelTable(k.table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("removing nftables table %s: %w", tableName, err)
	}
	return nil
}

// writeClasses queues the chains of new classes.
func (k *kernel) writeClasses(conn *nftables.Conn, c Change) {
	for _, m := range c.Classes {
		chain := Chain{Name: m.Class.chain(), Rules: m.Class.rules(k.cfg.ClusterCIDR)}
		k.chains[m.Number] = chain.Name
		if m.Class.hasChain() {
			conn.AddChain(k.chain(chain))
			k.addRules(conn, chain)
		}
	}
}

// writeElements queues the rest of a change: deletions before additions, because a value is changed
// by replacing its element.
func (k *kernel) writeElements(conn *nftables.Conn, c Change) error {
	return errors.Join(k.each(c.Delete, conn.SetDeleteElements), k.each(c.Add, conn.SetAddElements))
}

// each hands over the elements map by map.
func (k *kernel) each(elements []Element, do func(*nftables.Set, []nftables.SetElement) error) error {
	for len(elements) > 0 {
		m := elements[0].Map
		var raw []nftables.SetElement
		for len(raw) < min(chunk, len(elements)) && elements[len(raw)].Map == m {
			raw = append(raw, elements[len(raw)].compile(k.fam, k.chains))
		}
		if err := inPieces(k.sets[m], raw, do); err != nil {
			return err
		}
		elements = elements[len(raw):]
	}
	return nil
}

// inPieces hands over elements of a set in pieces that fit into a message.
func inPieces(s *nftables.Set, elements []nftables.SetElement, do func(*nftables.Set, []nftables.SetElement) error) error {
	for part := range slices.Chunk(elements, chunk) {
		if err := do(s, part); err != nil {
			return fmt.Errorf("encoding elements of %s: %w", s.Name, err)
		}
	}
	return nil
}

func (k *kernel) chain(c Chain) *nftables.Chain {
	out := &nftables.Chain{Name: c.Name, Table: k.table}
	if c.Hook != nil {
		out.Type, out.Hooknum = c.Hook.kind, c.Hook.at
		out.Priority = new(nftables.ChainPriority(c.Hook.priority + k.turn))
	}
	return out
}

func (k *kernel) addRules(conn *nftables.Conn, c Chain) {
	chain := &nftables.Chain{Name: c.Name, Table: k.table}
	for _, r := range c.Rules {
		var exprs []expr.Any
		for _, s := range r {
			exprs = append(exprs, s.exprs(k.fam)...)
		}
		conn.AddRule(&nftables.Rule{Table: k.table, Chain: chain, Exprs: exprs})
	}
}

// affinity reads which clients are bound to the named endpoints, and for how long yet.
func (k *kernel) affinity(conn *nftables.Conn, named func(string) bool) ([]nftables.SetElement, error) {
	elements, err := conn.GetSetElements(k.sets[mapCount])
	var found []nftables.SetElement
	for _, e := range elements {
		if e.Expires > 0 && named(string(e.Key[4*k.fam.words:])) {
			found = append(found, nftables.SetElement{Key: e.Key, Timeout: e.Expires})
		}
	}
	return found, err
}

// intact compares what stands in the kernel with what should, by numbers: of rules in the fixed
// chains and of elements in each map.
func (k *kernel) intact(want [mapCount]int) (bool, error) {
	conn, err := k.conn()
	if err != nil {
		return false, fmt.Errorf("opening netlink: %w", err)
	}
	for _, c := range baseChains(k.fam, k.cfg.ServiceCIDR) {
		rules, err := conn.GetRules(k.table, k.chain(c))
		if err != nil || len(rules) != len(c.Rules) {
			return false, nil //nolint:nilerr // what cannot be read is to be rebuilt
		}
	}
	for m := range mapCount {
		elements, err := conn.GetSetElements(k.sets[m])
		if err != nil || len(elements) != want[m] {
			return false, nil //nolint:nilerr // as above
		}
	}
	return true, nil
}

// frontends reads back every destination that the table translates. Nothing is read if there is no
// table.
func (k *kernel) frontends() (map[frontend]bool, error) {
	conn, err := k.conn()
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	found := map[frontend]bool{}
	for _, m := range []Map{Frontends, HostPorts} {
		elements, err := conn.GetSetElements(k.sets[m])
		if err != nil {
			continue
		}
		for _, e := range elements {
			n := len(e.Key) - 8 // protocol and port are last
			if n < 0 {
				continue
			}
			at := frontend{protocol: Protocol(e.Key[n]), port: binary.BigEndian.Uint16(e.Key[n+4:])}
			if addr, ok := netip.AddrFromSlice(e.Key[:n]); ok {
				at.addr = toIP(addr)
			}
			found[at] = true
		}
	}
	return found, nil
}

// compile turns an element into the kernel's bytes.
func (e Element) compile(f *family, chains map[uint32]string) nftables.SetElement {
	k, v := e.Key, e.Value
	backend := func(a ip, n uint16) []byte { return slices.Concat(f.bytes(a), register16(n)) }
	frontend := k.frontend(f)
	switch k.Map {
	case Frontends:
		return nftables.SetElement{Key: frontend, VerdictData: &expr.Verdict{Kind: expr.VerdictGoto, Chain: chains[v.Class]}}
	case HostPorts:
		return nftables.SetElement{Key: frontend, Val: backend(v.Addr, v.Port)}
	case Endpoints:
		return nftables.SetElement{Key: append(frontend, register32(k.Index)...), Val: backend(v.Addr, v.Port)}
	}
	return nftables.SetElement{Key: slices.Concat(f.bytes(k.Addr), f.bytes(k.Addr))}
}

// frontend is the part of a key that all maps but Hairpin begin with.
func (k Key) frontend(f *family) []byte {
	return slices.Concat(f.bytes(k.Addr), register8(byte(k.Protocol)), register16(k.Port))
}
