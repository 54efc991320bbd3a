package proxy

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// family is what differs between IPv4 and IPv6.
type family struct {
	name         string // nft's word in front of saddr and daddr
	table        nftables.TableFamily
	proto        uint32 // of the nat expression
	words        uint32 // 32-bit registers that one address takes
	saddr, daddr uint32 // offsets in the network header
	address      nftables.SetDatatype
	any          string // the unspecified address, as text
	loopback     netip.Prefix
}

func ipv4() *family {
	return &family{
		name: "ip", table: nftables.TableFamilyIPv4, proto: unix.NFPROTO_IPV4, words: 1,
		saddr: 12, daddr: 16, address: nftables.TypeIPAddr, any: "0.0.0.0",
		loopback: netip.MustParsePrefix("127.0.0.0/8"),
	}
}

// The registers of a rule that picks an endpoint. The order is such that the parts of every key lie
// side by side, with the client's address in front and the result behind; with IPv6 it fills the 16
// registers exactly.
//
//	client | address protocol port | index | address port
//	         \_____ frontend ____/           \__ result _/
func (f *family) client() uint32   { return unix.NFT_REG32_00 }
func (f *family) frontend() uint32 { return f.client() + f.words }
func (f *family) index() uint32    { return f.frontend() + f.words + 2 }
func (f *family) result() uint32   { return f.index() + 1 }

// bytes is the address as the kernel compares it.
func (f *family) bytes(a ip) []byte {
	if f.words == 1 {
		return a[12:]
	}
	return a[:]
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

// In a register every field starts at a multiple of four bytes; ports are big endian, indexes and
// class numbers in the machine's order.
func register8(v uint8) []byte   { return []byte{v, 0, 0, 0} }
func register16(v uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, v), 0, 0) }
func register32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
