package proxy

import (
	"net/netip"
	"slices"

	"flyball.dev/nft"
)

// family is what differs between IPv4 and IPv6.
type family struct {
	nft.Family
	saddr, daddr nft.Field
	address      nft.Type
	loopback     netip.Prefix
}

func ipv4() *family {
	return &family{nft.IPv4, nft.IPSaddr, nft.IPDaddr, nft.TypeIPv4, netip.MustParsePrefix("127.0.0.0/8")}
}

// size is the number of bytes of an address, and append appends them to a key.
func (f *family) size() int {
	if f.Family == nft.IPv4 {
		return 4
	}
	return 16
}

func (f *family) append(key []byte, a ip) []byte { return append(key, a[16-f.size():]...) }

// only keeps the ranges of the family.
func (f *family) only(ranges []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(ranges), func(p netip.Prefix) bool {
		return !p.IsValid() || p.Addr().Is4() != (f.Family == nft.IPv4)
	})
}

// ip is an address without a pointer in it, so that tens of thousands of elements cost the garbage
// collector nothing. The zero ip stands for "any".
type ip [16]byte

func toIP(a netip.Addr) ip {
	if !a.IsValid() || a.IsUnspecified() {
		return ip{}
	}
	return a.As16()
}

func (a ip) addr() netip.Addr {
	if a == (ip{}) {
		return netip.IPv4Unspecified()
	}
	return netip.AddrFrom16(a).Unmap()
}

func (a ip) String() string { return a.addr().String() }
