package proxy

import (
	"fmt"
	"hash/fnv"
	"net/netip"
	"time"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The statements that find a Service port by a packet's destination, and one of its endpoints.
// Their registers are laid out in family.go.

// identify puts the frontend that the packet is for into its registers.
func (v Via) identify(f *family) []expr.Any {
	addr := load(f, f.daddr, f.frontend())
	if v == ViaNodePort {
		addr = constant(f.frontend(), make([]byte, 4*f.words))
	}
	return append([]expr.Any{addr}, loadPort(f.frontend()+f.words)...)
}

func (v Via) text(f *family) string {
	addr := f.name + " daddr"
	if v == ViaNodePort {
		addr = f.any
	}
	return addr + " . meta l4proto . th dport"
}

// dispatch goes to the chain of the frontend's class.
type dispatch struct{ via Via }

func (s dispatch) text(f *family) string {
	return fmt.Sprintf("%s vmap @%s", s.via.text(f), Frontends)
}

func (s dispatch) exprs(f *family) []expr.Any {
	return append(s.via.identify(f), lookup(Frontends.String(), f.frontend(), unix.NFT_REG_VERDICT))
}

// pick sends the connection to one of the first count endpoints of a list.
type pick struct {
	via   Via
	list  List
	count int
}

func (s pick) text(f *family) string {
	index := fmt.Sprint(s.list.first())
	if s.count > 1 {
		index = fmt.Sprintf("numgen random mod %d offset %d", s.count, s.list.first())
	}
	return fmt.Sprintf("dnat %s to %s . %s map @%s", f.name, s.via.text(f), index, Endpoints)
}

func (s pick) exprs(f *family) []expr.Any {
	index := constant(f.index(), register32(s.list.first()))
	if s.count > 1 {
		index = &expr.Numgen{Register: f.index(), Modulus: uint32(s.count), Offset: s.list.first(), Type: unix.NFT_NG_RANDOM}
	}
	return append(s.via.identify(f), index, lookup(Endpoints.String(), f.frontend(), f.result()), dnat(f, f.result()))
}

func dnat(f *family, register uint32) expr.Any {
	return &expr.NAT{Type: expr.NATTypeDestNAT, Family: f.proto, RegAddrMin: register, RegProtoMin: register + f.words}
}

// stick sends the connection to one certain endpoint: if the client is known to have been there,
// or, for others, with a chance of one in odds. Either way it will be known for the given time from
// now.
type stick struct {
	via     Via
	list    List
	to      netip.AddrPort
	known   bool
	odds    int
	seconds uint32
}

func (s stick) text(f *family) string {
	key := fmt.Sprintf("%s saddr . %s . %#08x", f.name, s.via.text(f), bindingHash(s.list, s.to))
	when := ""
	if s.known {
		when = fmt.Sprintf("%s @%s ", key, affinityMap)
	} else if s.odds > 1 {
		when = fmt.Sprintf("numgen random mod %d == 0 ", s.odds)
	}
	return fmt.Sprintf("%supdate @%s { %s timeout %ds } dnat %s to %s", when, affinityMap, key, s.seconds, f.name, s.to)
}

func (s stick) exprs(f *family) []expr.Any {
	var exprs []expr.Any
	if !s.known && s.odds > 1 {
		exprs = append(exprs,
			&expr.Numgen{Register: scratch, Modulus: uint32(s.odds), Type: unix.NFT_NG_RANDOM},
			compare(false, register32(0)))
	}
	exprs = append(exprs, load(f, f.saddr, f.client()))
	exprs = append(exprs, s.via.identify(f)...)
	exprs = append(exprs, constant(f.index(), register32(bindingHash(s.list, s.to))))
	if s.known {
		exprs = append(exprs, contains(affinityMap, f.client()))
	}
	return append(exprs,
		// Where the set is full this does not match: then better no affinity than no service, which
		// the last rule of the chain sees to.
		&expr.Dynset{
			SetName: affinityMap, SrcRegKey: f.client(), Operation: unix.NFT_DYNSET_OP_UPDATE,
			Timeout: time.Duration(s.seconds) * time.Second,
		},
		constant(f.result(), s.to.Addr().AsSlice()),
		constant(f.result()+f.words, register16(s.to.Port())[:2]),
		dnat(f, f.result()))
}

// bindingHash stands for an endpoint of a list in the set of known clients, where there is no room
// for another address. If two were equal, their clients could change between the two endpoints.
func bindingHash(list List, endpoint netip.AddrPort) uint32 {
	h := fnv.New32a()
	h.Write([]byte(list.String() + " " + endpoint.String()))
	return h.Sum32()
}

// hostPort sends the connection to the Pod that has the port, bound to the destination address or
// to any.
type hostPort struct{ via Via }

func (s hostPort) text(f *family) string {
	return fmt.Sprintf("dnat %s to %s map @%s", f.name, s.via.text(f), HostPorts)
}

func (s hostPort) exprs(f *family) []expr.Any {
	return append(s.via.identify(f), lookup(HostPorts.String(), f.frontend(), f.index()), dnat(f, f.index()))
}
