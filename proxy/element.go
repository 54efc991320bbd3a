package proxy

import (
	"bytes"
	"cmp"

	"flyball.dev/nft"
)

// Protocol is an IANA protocol number.
type Protocol uint8

// The protocols that a Service port may have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	return map[Protocol]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}[p]
}

// Map names one of the table's maps and sets whose elements follow Services and Pods.
type Map uint8

// The maps and sets; doc.go shows their keys and values.
const (
	Frontends Map = iota // NodePorts are those without an address
	HostPorts
	Endpoints
	Hairpin // set: address . address of the local endpoints
	mapCount
)

func (m Map) String() string {
	return [...]string{"frontends", "host-ports", "endpoints", "hairpin"}[m]
}

// Key is the key of an element; which fields count depends on Map.
type Key struct {
	Map      Map
	Protocol Protocol
	Port     uint16
	Index    uint32 // Endpoints
	Addr     ip
}

// Value is the value of an element; which fields count depends on the Map.
type Value struct {
	Addr   ip
	Port   uint16
	Class  uint32
	Sticky bool // Endpoints: clients are bound to it
}

// Element is one element of one map. It is comparable.
type Element struct {
	Key
	Value
}

// bond is an element of Endpoints without its place in its list: what clients are bound to.
func (e Element) bond() Element {
	e.Index &= localIndex
	return e
}

func compareElements(a, b Element) int {
	return cmp.Or(
		cmp.Compare(a.Map, b.Map),
		bytes.Compare(a.Key.Addr[:], b.Key.Addr[:]),
		cmp.Compare(a.Protocol, b.Protocol),
		cmp.Compare(a.Key.Port, b.Key.Port),
		cmp.Compare(a.Index, b.Index),
		bytes.Compare(a.Value.Addr[:], b.Value.Addr[:]),
		cmp.Compare(a.Value.Port, b.Value.Port),
	)
}

// compile is the element as the kernel has it; chains names those of the classes.
func (e Element) compile(f *family, chains map[uint32]string) nft.Element {
	var space [32]byte // of the longest key, with IPv6
	key := space[:0]
	if e.Map == Hairpin {
		return nft.Element{Key: nft.Data(f.append(f.append(key, e.Key.Addr), e.Key.Addr))}
	}
	key = e.frontend(f, key)
	if e.Map == Frontends {
		return nft.Element{Key: nft.Data(key), Verdict: nft.GoTo(chains[e.Class])}
	}
	if e.Map == Endpoints {
		key = nft.AppendUint32(key, e.Index)
	}
	var backend [20]byte
	value := nft.AppendPort(f.append(backend[:0], e.Value.Addr), e.Value.Port)
	return nft.Element{Key: nft.Data(key), Value: nft.Data(value)}
}

// frontend appends the beginning of the keys of all maps but Hairpin.
func (k Key) frontend(f *family, key []byte) []byte {
	return nft.AppendPort(nft.AppendProtocol(f.append(key, k.Addr), uint8(k.Protocol)), k.Port)
}
