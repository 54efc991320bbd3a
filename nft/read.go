package nft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Tables lists the tables of all programs.
func (k Kernel) Tables() ([]TableName, error) {
	conn, err := k.conn()
	if err != nil {
		return nil, err
	}
	var names []TableName
	for _, f := range []Family{IPv4, IPv6, Inet} {
		tables, err := conn.ListTablesOfFamily(families[f])
		if err != nil {
			return nil, fmt.Errorf("listing nftables tables: %w", err)
		}
		for _, t := range tables {
			names = append(names, TableName{f, t.Name})
		}
	}
	return names, nil
}

// Read reads a table and all that is in it. If the table does not exist, the result has no name.
func (k Kernel) Read(name TableName) (Table, error) {
	tables, err := k.Tables()
	if err != nil || !slices.Contains(tables, name) {
		return Table{}, err
	}
	conn, err := k.conn()
	if err != nil {
		return Table{}, err
	}
	t := Table{TableName: name, Elements: map[string][]Element{}}
	chains, err := conn.ListChainsOfTableFamily(families[name.Family])
	if err != nil {
		return Table{}, fmt.Errorf("listing the chains of nftables table %s: %w", name, err)
	}
	for _, c := range chains {
		if c.Table.Name != name.Name {
			continue
		}
		rules, err := k.Rules(name, c.Name)
		if err != nil {
			return Table{}, err
		}
		t.Chains = append(t.Chains, Chain{Name: c.Name, Base: base(c), Rules: rules})
	}
	if t.Sets, err = k.sets(name); err != nil {
		return Table{}, fmt.Errorf("listing the sets of nftables table %s: %w", name, err)
	}
	for _, s := range t.Sets {
		if t.Elements[s.Name], err = k.Elements(name, s); err != nil {
			return Table{}, err
		}
	}
	return t, nil
}

// Base reads the hook, type, priority and policy of a base chain.
func (k Kernel) Base(table TableName, chain string) (Base, error) {
	conn, err := k.conn()
	if err != nil {
		return Base{}, err
	}
	c, err := conn.ListChain(library(table), chain)
	if err != nil {
		return Base{}, fmt.Errorf("reading chain %s of nftables table %s: %w", chain, table, err)
	}
	return base(c), nil
}

func base(c *nftables.Chain) Base {
	if c.Hooknum == nil || c.Priority == nil {
		return Base{}
	}
	b := Base{
		Type: ChainType(c.Type), Priority: int32(*c.Priority),
		DropByDefault: c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop,
	}
	for h, number := range hooks {
		if *number == *c.Hooknum {
			b.Hook = h
		}
	}
	return b
}

// Rules reads the rules of a chain; none if the chain does not exist.
func (k Kernel) Rules(table TableName, chain string) ([]Rule, error) {
	conn, err := k.conn()
	if err != nil {
		return nil, err
	}
	t := library(table)
	found, err := conn.GetRules(t, &nftables.Chain{Table: t, Name: chain})
	if err != nil {
		return nil, fmt.Errorf("listing the rules of chain %s of nftables table %s: %w", chain, table, err)
	}
	rules := make([]Rule, 0, len(found))
	for _, r := range found {
		comment, _ := userdata.GetString(r.UserData, userdata.TypeComment)
		rules = append(rules, Rule{Statements: decompile(r.Exprs), Comment: comment, Handle: r.Handle})
	}
	return rules, nil
}

// Elements reads the elements of a set, including those that rules added.
func (k Kernel) Elements(table TableName, s Set) ([]Element, error) {
	conn, err := k.conn()
	if err != nil {
		return nil, err
	}
	found, err := conn.GetSetElements(s.compile(library(table), 0))
	if err != nil {
		return nil, fmt.Errorf("listing the elements of set %s of nftables table %s: %w", s.Name, table, err)
	}
	elements := make([]Element, 0, len(found))
	for _, e := range found {
		out := Element{Key: pad(e.Key), End: pad(e.KeyEnd), Timeout: e.Timeout, Expires: e.Expires}
		if s.Value == (Types{TypeVerdict}) {
			out.Verdict = elementVerdict(e.Val)
		} else {
			out.Value = pad(e.Val)
		}
		elements = append(elements, out)
	}
	if s.Interval && s.Key.count() == 1 {
		return joinRanges(elements, found), nil
	}
	return elements, nil
}

// pad fills up the last field to a whole register: the kernel does not pad the only field of a key.
func pad(b []byte) Data { return Data(append(b, make([]byte, -len(b)&3)...)) }

// elementVerdict decodes the attributes of a verdict map's value. A verdict without a Kind is zero.
func elementVerdict(b []byte) Verdict {
	ad, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return Verdict{}
	}
	ad.ByteOrder = binary.BigEndian
	kind, chain := expr.VerdictContinue, ""
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_VERDICT_CODE:
			kind = expr.VerdictKind(int32(ad.Uint32()))
		case unix.NFTA_VERDICT_CHAIN:
			chain = ad.String()
		}
	}
	v, _ := verdict(kind, chain)
	return v
}

// joinRanges makes one element of the two that the kernel has for a range: the first key in it, and
// the first key behind it. The last range may lack the second.
func joinRanges(elements []Element, raw []nftables.SetElement) []Element {
	var ranges []Element
	var ends [][]byte
	for _, e := range raw {
		if e.IntervalEnd {
			ends = append(ends, e.Key)
		}
	}
	slices.SortFunc(ends, bytes.Compare)
	for i, e := range elements {
		if raw[i].IntervalEnd {
			continue
		}
		end := make([]byte, len(raw[i].Key))
		behind := slices.IndexFunc(ends, func(b []byte) bool { return bytes.Compare(b, raw[i].Key) > 0 })
		if behind >= 0 {
			end = ends[behind]
		}
		e.End = pad(step(end, -1))
		ranges = append(ranges, e)
	}
	return ranges
}

// sets reads the declarations of a table's sets by netlink: the library loses a verdict map's key.
func (k Kernel) sets(table TableName) ([]Set, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: k.NetNS})
	if err != nil {
		return nil, fmt.Errorf("opening netlink: %w", err)
	}
	defer conn.Close()
	name, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_SET_TABLE, Data: append([]byte(table.Name), 0)},
	})
	if err != nil {
		return nil, err
	}
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETSET),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: append([]byte{byte(families[table.Family]), unix.NFNETLINK_V0, 0, 0}, name...),
	})
	if err != nil {
		return nil, err
	}
	var sets []Set
	for _, m := range messages {
		ad, err := netlink.NewAttributeDecoder(m.Data[4:])
		if err != nil {
			return nil, err
		}
		ad.ByteOrder = binary.BigEndian
		sets = append(sets, decodeSet(ad))
		if ad.Err() != nil {
			return nil, ad.Err()
		}
	}
	return sets, nil
}

func decodeSet(ad *netlink.AttributeDecoder) Set {
	var s Set
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_SET_NAME:
			s.Name = ad.String()
		case unix.NFTA_SET_FLAGS:
			flags := ad.Uint32()
			s.Interval, s.Dynamic = flags&unix.NFT_SET_INTERVAL != 0, flags&unix.NFT_SET_EVAL != 0
			s.Expiring = flags&unix.NFT_SET_TIMEOUT != 0
		case unix.NFTA_SET_KEY_TYPE:
			s.Key = decodeTypes(ad.Uint32())
		case unix.NFTA_SET_DATA_TYPE:
			s.Value = decodeTypes(ad.Uint32())
		case unix.NFTA_SET_DESC:
			ad.Nested(func(desc *netlink.AttributeDecoder) error {
				for desc.Next() {
					if desc.Type() == unix.NFTA_SET_DESC_SIZE {
						s.Size = desc.Uint32()
					}
				}
				return nil
			})
		}
	}
	return s
}

// decodeTypes decodes the nft tool's number of the types of a key: six bits for each field.
func decodeTypes(number uint32) Types {
	if number == unix.NFT_DATA_VERDICT {
		return Types{TypeVerdict}
	}
	var list []Type
	for ; number != 0; number >>= nftables.SetConcatTypeBits {
		for t, d := range types {
			if d.GetNFTMagic() == number&nftables.SetConcatTypeMask {
				list = append(list, t)
			}
		}
	}
	slices.Reverse(list)
	var t Types
	copy(t[:], list)
	return t
}

// BaseChain names a base chain of another program. Docker, ufw and firewalld have such chains.
type BaseChain struct {
	Table TableName
	Name  string
	// Owned is set if the kernel lets only the program that made the table change it. firewalld 2.1
	// and later ask for that.
	Owned bool
}

func (c BaseChain) String() string { return fmt.Sprintf("chain %s of table %s", c.Name, c.Table) }

// FilterChain is a base chain of type filter, of any program. Follow adds the rules of the chains
// that its rules jump to.
type FilterChain struct {
	BaseChain
	Rules         []Rule
	DropByDefault bool
	Jumps         map[string][]Rule
}

// tableOwner is the flag of a table that only the socket that made it may change
// (NFT_TABLE_F_OWNER).
const tableOwner = 1 << 1

// Filters reads the filter chains of a hook that IPv4 packets pass. What cannot be read is left out
// and is in the error. A chain that was deleted meanwhile has no rules.
func (k Kernel) Filters(hook Hook) ([]FilterChain, error) {
	conn, err := k.conn()
	if err != nil {
		return nil, err
	}
	var found []FilterChain
	var errs []error
	for _, f := range []Family{IPv4, Inet} {
		tables, err := conn.ListTablesOfFamily(families[f])
		if err != nil {
			errs = append(errs, fmt.Errorf("listing the tables of nftables: %w", err))
			continue
		}
		chains, err := conn.ListChainsOfTableFamily(families[f])
		if err != nil {
			errs = append(errs, fmt.Errorf("listing the chains of nftables: %w", err))
			continue
		}
		for _, c := range chains {
			b := base(c)
			if b.Type != Filter || b.Hook != hook {
				continue
			}
			of := BaseChain{Table: TableName{f, c.Table.Name}, Name: c.Name}
			of.Owned = slices.ContainsFunc(tables, func(t *nftables.Table) bool {
				return t.Name == c.Table.Name && owned(t)
			})
			chain := FilterChain{BaseChain: of, DropByDefault: b.DropByDefault, Jumps: map[string][]Rule{}}
			if chain.Rules, err = k.Rules(chain.Table, c.Name); err != nil {
				errs = append(errs, err)
				continue
			}
			found = append(found, chain)
		}
	}
	return found, errors.Join(errs...)
}

// Follow completes Jumps: it reads the chains that the rules of c jump or go to.
func (k Kernel) Follow(c *FilterChain) { k.follow(c, c.Rules) }

func (k Kernel) follow(c *FilterChain, rules []Rule) {
	for _, r := range rules {
		for _, s := range r.Statements {
			v, ok := s.(Verdict)
			if _, known := c.Jumps[v.Chain]; !ok || v.Chain == "" || known {
				continue
			}
			next, _ := k.Rules(c.Table, v.Chain)
			c.Jumps[v.Chain] = next
			k.follow(c, next)
		}
	}
}

// owned reads a table's flags, which the kernel sends as big-endian and the library takes for the
// host's byte order.
func owned(t *nftables.Table) bool {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, t.Flags))&tableOwner != 0
}
