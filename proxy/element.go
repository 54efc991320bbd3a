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
	key := e.frontend(f)
	switch e.Map {
	case Frontends:
		return nft.Element{Key: nft.Data(key), Verdict: nft.GoTo(chains[e.Class])}
	case HostPorts:
		return nft.Element{Key: nft.Data(key), Value: e.backend(f)}
	case Endpoints:
		return nft.Element{Key: nft.Data(nft.AppendUint32(key, e.Index)), Value: e.backend(f)}
	}
	addr := nft.Data(f.bytes(e.Key.Addr))
	return nft.Element{Key: addr + addr}
}

// frontend is the beginning of the keys of all maps but Hairpin.
func (k Key) frontend(f *family) []byte {
	b := append(make([]byte, 0, 28), f.bytes(k.Addr)...)
	return nft.AppendPort(nft.AppendProtocol(b, uint8(k.Protocol)), k.Port)
}

func (v Value) backend(f *family) nft.Data {
	return nft.Data(nft.AppendPort(append(make([]byte, 0, 20), f.bytes(v.Addr)...), v.Port))
}
