package proxy

import (
	"net/netip"
	"strings"

	"github.com/google/nftables"
)

// The table and its fixed chains.
const (
	tableName   = "flyball-proxy"
	rejectChain = "refuse"
	dropChain   = "discard"

	natPrerouting = "nat-prerouting"
	servicesChain = "services"
	localChain    = "local-addresses"

	affinityMap = "affinity"
)

// dstnat is the priority at which destinations are translated.
const dstnat = -100

// Rule is a sequence of statements; the first that does not match ends it.
type Rule []statement

func (r Rule) String() string {
	words := make([]string, len(r))
	for i, s := range r {
		words[i] = s.text(ipv4())
	}
	return strings.Join(words, " ")
}

// Chain is one chain of the table, as a value.
type Chain struct {
	Name  string
	Hook  *hook // nil: a chain that others go to
	Rules []Rule
}

type hook struct {
	kind     nftables.ChainType
	at       *nftables.ChainHook
	name     string
	priority int32
}

// baseChains is the part of the table that does not depend on any Service. serviceCIDR may be
// invalid: then traffic to unallocated cluster IPs is left to the routes.
func baseChains(f *family, serviceCIDR netip.Prefix) []Chain {
	chains := []Chain{
		{Name: rejectChain, Rules: []Rule{
			{l4proto{TCP}, rejectWith{reset: true}},
			{rejectWith{}},
		}},
		{Name: dropChain, Rules: []Rule{{verdict{to: toDrop}}}},
		{Name: localChain, Rules: []Rule{
			{hostPort{ViaAddress}},
			{hostPort{ViaNodePort}},
			{destIn{f.loopback, true}, dispatch{ViaNodePort}},
		}},
		{Name: servicesChain, Rules: []Rule{
			{dispatch{ViaAddress}},
			{isLocal{}, verdict{toGoto, localChain}},
		}},
		{
			Name: "guard-loopback", Hook: &hook{nftables.ChainTypeFilter, nftables.ChainHookPrerouting, "prerouting", -300},
			// route_localnet, which host ports on 127.0.0.1 need, would let Pods reach what listens
			// on the host's loopback.
			Rules: []Rule{{notFromLoopback{}, destIn{f.loopback, false}, verdict{to: toDrop}}},
		},
		{
			Name: "nat-prerouting", Hook: &hook{nftables.ChainTypeNAT, nftables.ChainHookPrerouting, "prerouting", -100},
			Rules: []Rule{{verdict{toJump, servicesChain}}},
		},
		{
			Name: "nat-output", Hook: &hook{nftables.ChainTypeNAT, nftables.ChainHookOutput, "output", dstnat},
			Rules: []Rule{{verdict{toJump, servicesChain}}},
		},
		{
			Name: "nat-postrouting", Hook: &hook{nftables.ChainTypeNAT, nftables.ChainHookPostrouting, "postrouting", 100},
			Rules: []Rule{
				{marked{}, masquerade{}},
				{destinationNAT{}, hairpin{}, masquerade{}},
				{destinationNAT{}, sourceIn{f.loopback, false}, destIn{f.loopback, true}, masquerade{}},
			},
		},
	}
	if !serviceCIDR.IsValid() {
		return chains
	}
	// What still has such a destination behind the NAT chains belongs to nobody.
	unclaimed := []Rule{{newConnection{}, destIn{serviceCIDR, false}, isLocal{not: true}, verdict{toGoto, rejectChain}}}
	return append(chains,
		Chain{"filter-forward", &hook{nftables.ChainTypeFilter, nftables.ChainHookForward, "forward", 0}, unclaimed},
		Chain{"filter-output", &hook{nftables.ChainTypeFilter, nftables.ChainHookOutput, "output", 0}, unclaimed})
}

// sets lists the maps and sets of the table, by name: those of Map, and at mapCount that of the
// clients with session affinity.
func sets(f *family, table *nftables.Table) []*nftables.Set {
	addr, proto, port, mark := f.address, nftables.TypeInetProto, nftables.TypeInetService, nftables.TypeMark
	concat := nftables.MustConcatSetType
	frontend, backend := concat(addr, proto, port), concat(addr, port)
	all := []*nftables.Set{
		{KeyType: frontend, DataType: nftables.TypeVerdict},
		{KeyType: frontend, DataType: backend},
		{KeyType: concat(addr, proto, port, mark), DataType: backend},
		{KeyType: concat(addr, addr)},
		{
			Name: affinityMap, KeyType: concat(addr, addr, proto, port, mark),
			Dynamic: true, HasTimeout: true, Size: 1 << 18,
		},
	}
	for i, s := range all {
		s.Table = table
		s.ID = uint32(i + 1)
		s.IsMap = s.DataType.Name != ""
		s.Concatenation = true
		if i < int(mapCount) {
			s.Name = Map(i).String()
		}
	}
	return all
}
