package nft

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"
)

// drawTable is a table with some sets, elements and chains, which lead to chains with a greater
// number only; or no table.
func drawTable(t *rapid.T) Table {
	if rapid.IntRange(0, 9).Draw(t, "none") == 0 {
		return Table{}
	}
	table := Table{TableName: TableName{IPv4, "t"}, Elements: map[string][]Element{}}
	var chains []string
	for i := 4; i >= 0; i-- {
		if !rapid.Bool().Draw(t, "chain") {
			continue
		}
		c := Chain{Name: fmt.Sprint("chain", i)}
		if i == 0 {
			c.Base = Base{Filter, Forward, int32(rapid.IntRange(0, 1).Draw(t, "priority")), false}
		}
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			v := Verdict{Kind: Drop}
			if len(chains) > 0 && rapid.Bool().Draw(t, "jump") {
				v = Verdict{Jump, rapid.SampledFrom(chains).Draw(t, "to")}
			}
			c.Rules = append(c.Rules, R(v))
		}
		table.Chains = append(table.Chains, c)
		if i > 0 { // nothing may lead to a base chain
			chains = append(chains, c.Name)
		}
	}
	for i := range 2 {
		if !rapid.Bool().Draw(t, "set") {
			continue
		}
		s := Set{Name: fmt.Sprint("set", i), Key: Types{rapid.SampledFrom([]Type{TypeMark, TypePort}).Draw(t, "type")}}
		if i == 0 {
			s.Value = Types{TypeVerdict}
		}
		for key := range uint32(3) {
			e := Element{Key: Data(AppendPort(nil, uint16(key)))}
			if i == 0 {
				e.Verdict = Verdict{Kind: Accept}
				if len(chains) > 0 {
					e.Verdict = Verdict{Goto, rapid.SampledFrom(chains).Draw(t, "verdict")}
				}
			}
			if rapid.Bool().Draw(t, "element") {
				table.Elements[s.Name] = append(table.Elements[s.Name], e)
			}
		}
		table.Sets = append(table.Sets, s)
	}
	return table
}

// TestDiff makes any table of any other one, in a transaction that can be committed; then nothing
// is left to do. Kernel and fake agree.
func TestDiff(t *testing.T) {
	inNamespace(t, func() {
		rapid.Check(t, func(t *rapid.T) {
			have, name := Table{}, TableName{IPv4, "t"}
			tables := []Table{drawTable(t), drawTable(t), drawTable(t), {}}
			hosts := []reader{NewFake()}
			if rapid.IntRange(0, 9).Draw(t, "kernel") == 0 { // it is slow
				hosts = append(hosts, Kernel{})
				before := Transaction{Table: name} // of a run that failed
				if before.Remove(); hosts[1].Apply(before) != nil {
					t.Fatal("the kernel has a table that cannot be removed")
				}
			}
			for _, want := range tables {
				tx := Diff(have, want)
				for _, host := range hosts {
					if err := host.Apply(tx); err != nil {
						t.Fatalf("%T: %v\n%s", host, err, &tx)
					}
					got, err := host.Read(name)
					if diff := sameTable(want, got); err != nil || diff != "" {
						t.Fatalf("%T: %v -want +got:\n%s\n%s", host, err, diff, &tx)
					}
					if rest := Diff(got, want); want.TableName == name && !rest.Empty() {
						t.Fatalf("%T: left to do:\n%s", host, &rest)
					}
				}
				have = want
			}
		})
	})
}
