package proxy

import (
	"fmt"
	"slices"
	"strings"
)

// text is the element in nft's syntax; class tells a class's chain by number.
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

// Text is the table that a Change describes, in nft's syntax, sorted: for tests
// and for people.
func (c Change) Text(cfg Config) string {
	var b strings.Builder
	names := map[uint32]string{}
	fmt.Fprintf(&b, "table ip %s {\n", tableName)
	for _, m := range c.Classes {
		names[m.Number] = m.Class.chain()
	}
	for m := range mapCount {
		fmt.Fprintf(&b, "  map %s {\n", m)
		for _, e := range c.Add {
			if e.Map == m {
				fmt.Fprintf(&b, "    %s\n", e.text(func(n uint32) string { return names[n] }))
			}
		}
		b.WriteString("  }\n")
	}
	chains := baseChains(ipv4(), cfg.ServiceCIDR)
	for _, m := range c.Classes {
		if m.Class.hasChain() {
			chains = append(chains, Chain{Name: m.Class.chain(), Rules: m.Class.rules(cfg.ClusterCIDR)})
		}
	}
	slices.SortStableFunc(chains, func(a, b Chain) int { return strings.Compare(a.Name, b.Name) })
	for _, ch := range chains {
		fmt.Fprintf(&b, "  chain %s {\n", ch.Name)
		if ch.Hook != nil {
			fmt.Fprintf(&b, "    type %s hook %s priority %d\n", ch.Hook.kind, ch.Hook.name, ch.Hook.priority)
		}
		for _, r := range ch.Rules {
			fmt.Fprintf(&b, "    %s\n", r)
		}
		b.WriteString("  }\n")
	}
	b.WriteString("}\n")
	return b.String()
}
