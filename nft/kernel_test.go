package nft

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"
)

// inNamespace runs a test on a thread in a network namespace of its own.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its namespace
		defer close(done)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// everything is a table with each kind of set, chain and statement.
func everything(family Family) Table {
	addrType, saddr, daddr := TypeIPv4, IPSaddr, IPDaddr
	network, host := prefix("10.42.0.0/16"), prefix("192.0.2.7/32")
	if family == IPv6 {
		addrType, saddr, daddr = TypeIPv6, IP6Saddr, IP6Daddr
		network, host = prefix("fd00:42::/48"), prefix("2001:db8::7/128")
	}
	nat := family
	if family == Inet {
		nat = IPv4
	}
	a := host.Addr()
	key := func(more ...byte) Data {
		return Data(append(AppendPort(AppendProtocol(AppendAddr(nil, a), 6), 80), more...))
	}
	first, last := Range(network)
	upper, greatest := Range(prefix("ff00::/8"))
	if family != IPv6 {
		upper, greatest = Range(prefix("224.0.0.0/3"))
	}
	frontend := Key{Of(daddr), Of(L4Proto), Of(Dport)}
	withIndex := func(o Operand) Key { return Key{frontend[0], frontend[1], frontend[2], o} }
	client := Key{Of(saddr), Of(daddr), Of(L4Proto), Of(Dport), Constant(Number(7))}
	return Table{
		TableName: TableName{family, "everything"},
		Sets: []Set{
			{Name: "frontends", Key: Types{addrType, TypeProtocol, TypePort}, Value: Types{TypeVerdict}},
			{Name: "endpoints", Key: Types{addrType, TypeProtocol, TypePort, TypeMark}, Value: Types{addrType, TypePort}},
			{Name: "peers", Key: Types{addrType}, Interval: true},
			{Name: "peer-ports", Key: Types{addrType, TypeProtocol, TypePort}, Interval: true},
			{Name: "pods", Key: Types{addrType}, Value: Types{TypeVerdict}},
			{
				Name: "clients", Key: Types{addrType, addrType, TypeProtocol, TypePort, TypeMark},
				Dynamic: true, Expiring: true, Size: 100,
			},
		},
		Chains: []Chain{
			{Name: "in", Base: Base{Filter, Input, PriorityFilter, true}, Rules: []Rule{
				R(OfFamily(nat), SourceIn(network), Not(DestinationIn(host)), Counter{}, Verdict{Kind: Accept}),
				R(HasBits(CTState, StateEstablished|StateRelated), Verdict{Kind: Accept}),
				{Statements: []Statement{InterfaceIs(Iifname, "lo"), Verdict{Jump, "more"}}, Comment: "test: loopback"},
			}},
			{Name: "pre", Base: Base{NAT, Prerouting, PriorityDstNAT, false}, Rules: []Rule{
				R(OfFamily(nat), Dispatch{Key: frontend, Map: "frontends"}),
				R(OfFamily(nat), In{Key: client, Set: "clients"}, Update{client, "clients", time.Minute},
					DNAT{Family: nat, To: netip.AddrPortFrom(a, 8080)}),
				R(OfFamily(nat), OneIn(3), DNAT{Family: nat, Key: withIndex(Random(2, 1)), Map: "endpoints"}),
				R(OfFamily(nat), DNAT{Family: nat, Key: withIndex(Constant(Number(1))), Map: "endpoints"}),
			}},
			{Name: "post", Base: Base{NAT, Postrouting, PrioritySrcNAT, false}, Rules: []Rule{
				R(HasBits(Mark, 0x4000), SetMark{And: ^uint32(0x4000)}, Masquerade{FullyRandom: true}),
				R(HasBits(CTStatus, StatusDNAT), Not(InterfaceIs(Oifname, "lo")), Masquerade{}),
			}},
			{Name: "more", Rules: []Rule{
				R(IsLocal(SourceType), Not(IsLocal(DestinationType)), SetMark{And: ^uint32(0x4000), Xor: 0x4000}),
				R(OfFamily(nat), In{Key: Key{Of(saddr)}, Set: "peers"}, ToPort(53), OfProtocol(17), Verdict{Goto, "refuse"}),
				R(OfFamily(nat), In{Key: Key{Of(saddr), Of(L4Proto), Of(Dport)}, Set: "peer-ports", Not: true},
					Verdict{Kind: Drop}),
				R(OfFamily(nat), Dispatch{Key: Key{Of(daddr)}, Map: "pods"}),
				R(Verdict{Kind: Return}),
			}},
			{Name: "refuse", Rules: []Rule{R(OfProtocol(6), RejectWithReset()), R(RejectUnreachable(family))}},
		},
		Elements: map[string][]Element{
			"frontends": {{Key: key(), Verdict: Verdict{Goto, "refuse"}}},
			"endpoints": {{Key: key(AppendUint32(nil, 1)...), Value: Data(AppendPort(AppendAddr(nil, a), 8080))}},
			"peers": {
				{Key: upper, End: greatest},
				{Key: first, End: last},
				{Key: Data(AppendAddr(nil, a)), End: Data(AppendAddr(nil, a))},
			},
			"peer-ports": {{
				Key: Data(AppendPort(AppendProtocol([]byte(first), 6), 80)),
				End: Data(AppendPort(AppendProtocol([]byte(last), 6), 90)),
			}},
			"pods": {{Key: Data(AppendAddr(nil, a)), Verdict: Verdict{Kind: Accept}}},
		},
	}
}

// another is a table that came out of everything by changes of each kind.
func another(family Family) Table {
	t := everything(family)
	t.Sets = append(t.Sets[:4:4], t.Sets[5:]...) // "pods" goes
	delete(t.Elements, "pods")
	t.Chains = slices.Clone(t.Chains)
	t.Chains[3].Rules = slices.Delete(slices.Clone(t.Chains[3].Rules), 3, 4) // that used it
	t.Chains[0].Rules = t.Chains[0].Rules[:2]
	t.Chains = append(t.Chains, Chain{Name: "new", Rules: []Rule{R(Verdict{Kind: Drop})}})
	t.Elements["frontends"] = []Element{{Key: t.Elements["frontends"][0].Key, Verdict: Verdict{Goto, "new"}}}
	t.Elements["peers"] = t.Elements["peers"][1:]
	return t
}

// sameTable compares tables whatever the order of chains, sets and elements, which the kernel
// chooses.
func sameTable(a, b Table) string {
	empty := func(t Table) Table {
		t.Elements = map[string][]Element{}
		return t
	}
	diff := cmp.Diff(empty(a), empty(b),
		cmp.AllowUnexported(Operand{}), cmpopts.EquateComparable(netip.AddrPort{}), cmpopts.EquateEmpty(),
		cmpopts.SortSlices(func(a, b Chain) bool { return a.Name < b.Name }),
		cmpopts.SortSlices(func(a, b Set) bool { return a.Name < b.Name }))
	for _, s := range a.Sets {
		gone, added := difference(a.Elements[s.Name], b.Elements[s.Name])
		if len(gone)+len(added) > 0 {
			diff += s.String() + " differs\n"
		}
	}
	return diff
}

// reader is a Kernel or a Fake.
type reader interface {
	Apply(t Transaction) error
	Read(name TableName) (Table, error)
	Elements(table TableName, s Set) ([]Element, error)
}

// TestAgree applies the same transactions to the kernel and to the fake, and reads back the same.
func TestAgree(t *testing.T) {
	for _, family := range []Family{IPv4, IPv6, Inet} {
		t.Run(family.String(), func(t *testing.T) {
			inNamespace(t, func() {
				both := []reader{Kernel{}, NewFake()}
				have := Table{}
				for _, want := range []Table{everything(family), another(family), everything(family), {}} {
					tx := Diff(have, want)
					for _, r := range both {
						if err := r.Apply(tx); err != nil {
							t.Errorf("%T: %v\n%s", r, err, &tx)
							return
						}
						got, err := r.Read(everything(family).TableName)
						if err != nil {
							t.Errorf("%T: %v", r, err)
							return
						}
						if diff := sameTable(want, got); diff != "" {
							t.Errorf("%T: -written +read:\n%s", r, diff)
						}
						if rest := Diff(got, want); len(want.Sets) > 0 && !rest.Empty() {
							t.Errorf("%T: left to do:\n%s", r, &rest)
						}
					}
					have = want
				}
			})
		})
	}
}

// TestRefused has the kernel and the fake refuse the same transactions, and change nothing.
func TestRefused(t *testing.T) {
	table := everything(IPv4)
	frontends := table.Sets[0]
	there, missing := table.Elements["frontends"][0], Element{Key: Data(make([]byte, 12))}
	inNamespace(t, func() {
		for name, tc := range map[string]struct {
			reason string
			change func(*Transaction)
			want   error
		}{
			"Element": {"an element to be deleted is not there", func(tx *Transaction) {
				tx.DeleteElements(frontends, missing)
			}, fs.ErrNotExist},
			"Value": {"a value is changed by replacing its element", func(tx *Transaction) {
				tx.AddElements(frontends, Element{Key: there.Key, Verdict: Verdict{Goto, "more"}})
			}, fs.ErrExist},
			"Chain": {"a rule leads nowhere", func(tx *Transaction) {
				tx.AddChains(Chain{Name: "x", Rules: []Rule{R(JumpTo("y"))}})
			}, fs.ErrNotExist},
			"Set": {"a rule reads no set", func(tx *Transaction) {
				tx.AddChains(Chain{Name: "x", Rules: []Rule{R(In{Key{Of(Mark)}, "y", false})}})
			}, fs.ErrNotExist},
			"Later": {"what comes before is undone", func(tx *Transaction) {
				tx.DeleteElements(frontends, there)
				tx.DeleteElements(frontends, missing)
			}, fs.ErrNotExist},
		} {
			for _, r := range []reader{Kernel{}, NewFake()} {
				tx := Transaction{Table: table.TableName}
				tx.Remove()
				tx.Create(table)
				if err := r.Apply(tx); err != nil {
					t.Errorf("%T: %v", r, err)
					return
				}
				tx = Transaction{Table: table.TableName}
				tc.change(&tx)
				if err := r.Apply(tx); !errors.Is(err, tc.want) {
					t.Errorf("%s: %T: got %v, want %v: %s", name, r, err, tc.want, tc.reason)
				}
				if got, err := r.Read(table.TableName); err != nil || sameTable(table, got) != "" {
					t.Errorf("%s: %T: %v, the table changed: %s", name, r, err, sameTable(table, got))
				}
			}
		}
	})
}

// TestManyElements writes more elements than one attribute holds.
func TestManyElements(t *testing.T) {
	inNamespace(t, func() {
		s := Set{Name: "many", Key: Types{TypeMark}, Value: Types{TypeVerdict}}
		chain := Chain{Name: strings.Repeat("long", 25)}
		table := Table{
			TableName: TableName{IPv4, "many"}, Sets: []Set{s}, Chains: []Chain{chain}, Elements: map[string][]Element{},
		}
		for i := range uint32(5000) {
			table.Elements[s.Name] = append(table.Elements[s.Name], Element{Key: Number(i), Verdict: Verdict{Goto, chain.Name}})
		}
		if err := (Kernel{}).Apply(Diff(Table{}, table)); err != nil {
			t.Error(err)
			return
		}
		if got, err := (Kernel{}).Read(table.TableName); err != nil || sameTable(table, got) != "" {
			t.Errorf("%v, %d elements were read", err, len(got.Elements[s.Name]))
		}
	})
}

// TestWatch has an event after a change.
func TestWatch(t *testing.T) {
	inNamespace(t, func() {
		w, err := Kernel{}.Watch()
		if err != nil {
			t.Error(err)
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		changed, ended := make(chan struct{}, 1), make(chan error, 1)
		go func() { ended <- w.Run(ctx, changed) }()
		if err := (Kernel{}).Apply(Diff(Table{}, everything(IPv4))); err != nil {
			t.Error(err)
		}
		select {
		case <-changed:
		case <-time.After(10 * time.Second):
			t.Error("there is no event")
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
