package nft

import (
	"cmp"
	"fmt"
	"math/big"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
)

// Kernel reads and changes the kernel's rules, over netlink.
type Kernel struct {
	// NetNS is the file descriptor of a network namespace; 0: the process's own.
	NetNS int
}

// Netlink carries a whole transaction in one message to the socket, so that is what its buffers
// must hold; an attribute, such as a list of elements, is limited to 64 KiB.
const (
	sendBuffer   = 128 << 20
	answerBuffer = 16 << 20
	listBytes    = 60_000
	// elementOverhead bounds what an element needs beside its key, value and chain.
	elementOverhead = 72
)

func (k Kernel) conn() (*nftables.Conn, error) {
	conn, err := nftables.New(nftables.WithNetNSFd(k.NetNS), nftables.WithSockOptions(
		func(c *netlink.Conn) error { return c.SetWriteBuffer(sendBuffer) },
		func(c *netlink.Conn) error { return c.SetReadBuffer(answerBuffer) },
	))
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	return conn, nil
}

// Apply commits a transaction: the kernel carries out all of it, or nothing and returns an error.
// It is fs.ErrNotExist if the table, or something that an operation names, is not there, and
// fs.ErrPermission if another program owns the table.
func (k Kernel) Apply(t Transaction) error {
	if t.Empty() {
		return nil
	}
	conn, err := k.conn()
	if err != nil {
		return err
	}
	table := library(t.Table)
	for i, o := range t.Operations {
		if err := queue(conn, table, o, uint32(i+1)); err != nil {
			return fmt.Errorf("encoding %s for nftables table %s: %w", o.Do, t.Table, err)
		}
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("changing nftables table %s: %w", t.Table, err)
	}
	return nil
}

// queue hands an operation to the library. id names a set within the transaction.
func queue(conn *nftables.Conn, table *nftables.Table, o Operation, id uint32) error {
	chain := &nftables.Chain{Table: table, Name: o.Chain.Name}
	rule := &nftables.Rule{Table: table, Chain: chain, Handle: o.Rule.Handle}
	switch o.Do {
	case AddTable:
		conn.AddTable(table)
	case DeleteTable:
		conn.DelTable(table)
	case AddChain:
		setBase(chain, o.Chain.Base)
		conn.AddChain(chain)
	case FlushChain:
		conn.FlushChain(chain)
	case DeleteChain:
		conn.DelChain(chain)
	case DeleteRule:
		return conn.DelRule(rule)
	case AddRule, InsertRule:
		for _, s := range o.Rule.Statements {
			rule.Exprs = append(rule.Exprs, compile(s)...)
		}
		if o.Rule.Comment != "" {
			rule.UserData = userdata.AppendString(nil, userdata.TypeComment, o.Rule.Comment)
		}
		if rule.Handle = 0; o.Do == InsertRule {
			conn.InsertRule(rule)
		} else {
			conn.AddRule(rule)
		}
	case AddSet:
		return conn.AddSet(o.Set.compile(table, id), nil)
	case DeleteSet:
		conn.DelSet(o.Set.compile(table, id))
	case AddElements:
		return inLists(o.Set.compile(table, id), o.Elements, conn.SetAddElements)
	case DeleteElements:
		return inLists(o.Set.compile(table, id), o.Elements, conn.SetDeleteElements)
	}
	return nil
}

// inLists hands elements over in lists that fit into an attribute.
func inLists(s *nftables.Set, elements []Element, do func(*nftables.Set, []nftables.SetElement) error) error {
	list, size := make([]nftables.SetElement, 0, min(len(elements), listBytes/elementOverhead)), 0
	for _, e := range elements {
		n := len(e.Key) + len(e.End) + len(e.Value) + len(e.Verdict.Chain) + elementOverhead
		if size += n; size > listBytes {
			if err := do(s, list); err != nil {
				return err
			}
			list, size = list[:0], n // it was copied
		}
		list = e.compile(s, list)
	}
	if len(list) == 0 {
		return nil
	}
	return do(s, list)
}

// compile appends the element as the library has it. A field that is alone has no padding.
func (e Element) compile(s *nftables.Set, list []nftables.SetElement) []nftables.SetElement {
	out := nftables.SetElement{Key: cut(e.Key, s.KeyType), Val: cut(e.Value, s.DataType), Timeout: e.Timeout}
	if e.Verdict != (Verdict{}) {
		out.VerdictData = e.Verdict.compile()
	}
	if !s.Interval {
		return append(list, out)
	}
	end := cut(cmp.Or(e.End, e.Key), s.KeyType)
	if s.Concatenation {
		out.KeyEnd = end
		return append(list, out)
	}
	// The end of a range is an element of its own: the first key behind it. The last range has
	// none.
	if next := step(end, 1); strings.Trim(string(next), "\x00") != "" {
		return append(list, out, nftables.SetElement{Key: next, IntervalEnd: true})
	}
	return append(list, out)
}

func cut(d Data, t nftables.SetDatatype) []byte { return []byte(d[:min(len(d), int(t.Bytes))]) }

// step is the key behind another one (by 1), or before it (by -1). Behind the last one come zeros.
func step(d []byte, by int) []byte {
	n := new(big.Int).SetBytes(d)
	n.Add(n, big.NewInt(int64(by)))
	n.And(n, new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), uint(8*len(d))), big.NewInt(1)))
	return n.FillBytes(make([]byte, len(d)))
}

var families = map[Family]nftables.TableFamily{
	IPv4: nftables.TableFamilyIPv4, IPv6: nftables.TableFamilyIPv6, Inet: nftables.TableFamilyINet,
}

func library(t TableName) *nftables.Table {
	return &nftables.Table{Family: families[t.Family], Name: t.Name}
}

var hooks = map[Hook]*nftables.ChainHook{
	Prerouting: nftables.ChainHookPrerouting, Input: nftables.ChainHookInput, Forward: nftables.ChainHookForward,
	Output: nftables.ChainHookOutput, Postrouting: nftables.ChainHookPostrouting,
}

func setBase(c *nftables.Chain, b Base) {
	if b == (Base{}) {
		return
	}
	c.Type, c.Hooknum, c.Priority = nftables.ChainType(b.Type), hooks[b.Hook], new(nftables.ChainPriority(b.Priority))
	c.Policy = new(nftables.ChainPolicyAccept)
	if b.DropByDefault {
		c.Policy = new(nftables.ChainPolicyDrop)
	}
}

var types = map[Type]nftables.SetDatatype{
	TypeIPv4: nftables.TypeIPAddr, TypeIPv6: nftables.TypeIP6Addr, TypeProtocol: nftables.TypeInetProto,
	TypePort: nftables.TypeInetService, TypeMark: nftables.TypeMark, TypeInterface: nftables.TypeIFName,
	TypeVerdict: nftables.TypeVerdict,
}

func (t Types) compile() nftables.SetDatatype {
	var all []nftables.SetDatatype
	for _, f := range t[:t.count()] {
		all = append(all, types[f])
	}
	if len(all) == 1 {
		return all[0]
	}
	return nftables.MustConcatSetType(all...) // there are at most five
}

func (s Set) compile(table *nftables.Table, id uint32) *nftables.Set {
	out := &nftables.Set{
		Table: table, ID: id, Name: s.Name, KeyType: s.Key.compile(), Concatenation: s.Key.count() > 1,
		Interval: s.Interval, Dynamic: s.Dynamic, HasTimeout: s.Expiring, Size: s.Size,
	}
	if s.Value != (Types{}) {
		out.IsMap, out.DataType = true, s.Value.compile()
	}
	return out
}
