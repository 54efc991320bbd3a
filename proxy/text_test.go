package proxy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"flyball.dev/nft"
)

// text is the element in nft's syntax; class returns a class's chain by number.
func (e Element) text(class func(uint32) string) string {
	k := e.Key
	at := func(a fmt.Stringer, p Protocol, port uint16) string { return fmt.Sprintf("%s . %s . %d", a, p, port) }
	switch k.Map {
	case Frontends:
		return fmt.Sprintf("%s : %s", at(k.Addr, k.Protocol, k.Port), class(e.Class))
	case HostPorts:
		return fmt.Sprintf("%s : %s . %d", at(k.Addr, k.Protocol, k.Port), e.Value.Addr, e.Value.Port)
	case Endpoints:
		return fmt.Sprintf("%s . %d : %s . %d", at(k.Addr, k.Protocol, k.Port), k.Index, e.Value.Addr, e.Value.Port)
	}
	return fmt.Sprintf("%s . %s", k.Addr, k.Addr)
}

// text is the table that a change describes, in nft's syntax, sorted: for tests and for people.
func text(t *testing.T, c Change) string {
	t.Helper()
	fake := nft.NewFake(nodeIP)
	must(t, newTable(testConfig(), fake).rebuild(c))
	written, err := fake.Read(ipv4().table())
	must(t, err)
	slices.SortFunc(written.Chains, func(a, b nft.Chain) int { return strings.Compare(a.Name, b.Name) })
	return written.String()
}
