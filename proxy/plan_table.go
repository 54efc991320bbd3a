package proxy

import (
	"net/netip"

	"flyball.dev/nft"
)

// The table and its fixed chains.
const (
	tableName   = "flyball-proxy"
	rejectChain = "refuse"
	dropChain   = "discard"

	natPrerouting = "nat-prerouting"
	servicesChain = "services"
	localChain    = "local-addresses"
)

// masqueradeBit marks packets between the NAT chain and postrouting.
const masqueradeBit = 0x4000

var (
	drop              = nft.Verdict{Kind: nft.Drop}
	markForMasquerade = nft.SetMark{And: ^uint32(masqueradeBit), Xor: masqueradeBit}
	// No other program sees the mark.
	clearMark  = nft.SetMark{And: ^uint32(masqueradeBit)}
	masquerade = nft.Masquerade{FullyRandom: true}
)

func (f *family) table() nft.TableName { return nft.TableName{Family: f.Family, Name: tableName} }

// fixedChains is the part of the table that does not depend on any Service. Without serviceCIDRs,
// traffic to cluster IPs that no Service has is left to the routes. The chains that translate lie
// at shift behind their usual priority.
func fixedChains(f *family, serviceCIDRs []netip.Prefix, shift int32) []nft.Chain {
	base := func(kind nft.ChainType, hook nft.Hook, priority int32) nft.Base {
		return nft.Base{Type: kind, Hook: hook, Priority: priority + shift}
	}
	toServices := []nft.Rule{nft.R(nft.JumpTo(servicesChain))}
	chains := []nft.Chain{
		{Name: rejectChain, Rules: []nft.Rule{
			nft.R(nft.OfProtocol(uint8(TCP)), nft.RejectWithReset()),
			nft.R(nft.RejectUnreachable(f.Family)),
		}},
		{Name: dropChain, Rules: []nft.Rule{nft.R(drop)}},
		{Name: localChain, Rules: []nft.Rule{
			nft.R(nft.DNAT{Family: f.Family, Key: ViaAddress.key(f), Map: HostPorts.String()}),
			nft.R(nft.DNAT{Family: f.Family, Key: ViaNodePort.key(f), Map: HostPorts.String()}),
			nft.R(nft.Not(nft.DestinationIn(f.loopback)),
				nft.Dispatch{Key: ViaNodePort.key(f), Map: Frontends.String()}),
		}},
		{Name: servicesChain, Rules: []nft.Rule{
			nft.R(nft.Dispatch{Key: ViaAddress.key(f), Map: Frontends.String()}),
			nft.R(nft.IsLocal(nft.DestinationType), nft.GoTo(localChain)),
		}},
		{
			Name: "guard-loopback", Base: base(nft.Filter, nft.Prerouting, nft.PriorityRaw),
			// route_localnet, which host ports on 127.0.0.1 need, would let Pods reach what listens
			// on the host's loopback.
			Rules: []nft.Rule{nft.R(nft.Not(nft.InterfaceIs(nft.Iifname, "lo")), nft.DestinationIn(f.loopback), drop)},
		},
		{Name: natPrerouting, Base: base(nft.NAT, nft.Prerouting, nft.PriorityDstNAT), Rules: toServices},
		{Name: "nat-output", Base: base(nft.NAT, nft.Output, nft.PriorityDstNAT), Rules: toServices},
		{
			Name: "nat-postrouting", Base: base(nft.NAT, nft.Postrouting, nft.PrioritySrcNAT),
			Rules: []nft.Rule{
				nft.R(nft.HasBits(nft.Mark, masqueradeBit), clearMark, masquerade),
				nft.R(nft.HasBits(nft.CTStatus, nft.StatusDNAT),
					nft.In{Key: nft.Key{nft.Of(f.saddr), nft.Of(f.daddr)}, Set: Hairpin.String()}, masquerade),
				nft.R(nft.HasBits(nft.CTStatus, nft.StatusDNAT),
					nft.SourceIn(f.loopback), nft.Not(nft.DestinationIn(f.loopback)), masquerade),
			},
		},
	}
	var unclaimed []nft.Rule
	for _, cidr := range f.only(serviceCIDRs) {
		// A destination that the NAT chains left as it was is no Service's.
		unclaimed = append(unclaimed, nft.R(nft.HasBits(nft.CTState, nft.StateNew),
			nft.DestinationIn(cidr), nft.Not(nft.IsLocal(nft.DestinationType)), nft.GoTo(rejectChain)))
	}
	if unclaimed == nil {
		return chains
	}
	return append(chains,
		nft.Chain{Name: "filter-forward", Base: base(nft.Filter, nft.Forward, nft.PriorityFilter), Rules: unclaimed},
		nft.Chain{Name: "filter-output", Base: base(nft.Filter, nft.Output, nft.PriorityFilter), Rules: unclaimed})
}

// clients is the set of those with session affinity, to which rules add.
func clients(f *family) nft.Set {
	return nft.Set{
		Name: "affinity", Key: nft.Types{f.address, f.address, nft.TypeProtocol, nft.TypePort, nft.TypeMark},
		Dynamic: true, Expiring: true, Size: 1 << 18,
	}
}

// set declares one of the table's maps and sets.
func (m Map) set(f *family) nft.Set {
	backend := nft.Types{f.address, nft.TypePort}
	s := nft.Set{Name: m.String(), Key: nft.Types{f.address, nft.TypeProtocol, nft.TypePort}, Value: backend}
	switch m {
	case Frontends:
		s.Value = nft.Types{nft.TypeVerdict}
	case Endpoints:
		s.Key[3] = nft.TypeMark
	case Hairpin:
		s.Key, s.Value = nft.Types{f.address, f.address}, nft.Types{}
	}
	return s
}

// sets are the maps and sets of the table.
func sets(f *family) []nft.Set {
	var all []nft.Set
	for m := range mapCount {
		all = append(all, m.set(f))
	}
	return append(all, clients(f))
}
