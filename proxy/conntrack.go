package proxy

import (
	"net/netip"
	"slices"

	"flyball.dev/nft"
)

// connections is what the proxy needs of the kernel's connection table: an nft.Kernel.
type connections interface {
	// DeleteConnections deletes the entries that match: the rules decide their next packet again.
	DeleteConnections(family nft.Family, match func(nft.Connection) bool) error
}

// frontend is a destination that the table translates; the zero ip is any address of this host.
type frontend struct {
	addr     ip
	protocol Protocol
	port     uint16
}

// destination is the connection's destination, by address and, if that is one of this host, by port
// alone.
func destination(c nft.Connection) (exact, anyAddr frontend, local bool) {
	p := Protocol(c.Protocol)
	exact = frontend{toIP(c.Destination.Addr()), p, c.Destination.Port()}
	return exact, frontend{ip{}, p, exact.port}, c.Local
}

// staleFlows are the endpoints of UDP frontends that changed.
type staleFlows map[frontend][]netip.AddrPort

func newStaleFlows(flows []Flow) staleFlows {
	s := staleFlows{}
	for _, f := range flows {
		s[frontend{f.Addr, UDP, f.Port}] = f.Backends
	}
	return s
}

// match finds the UDP connections that lead to endpoints which their frontend does not have, or to
// none at all though it has some.
func (s staleFlows) match(c nft.Connection) bool {
	if Protocol(c.Protocol) != UDP {
		return false
	}
	exact, anyAddr, local := destination(c)
	backends, ok := s[exact]
	if !ok {
		backends, ok = s[anyAddr]
		if !local || len(backends) == 0 && c.Server == c.Destination {
			return false // it is a port of another host, or of a process of this one
		}
	}
	return ok && !slices.Contains(backends, c.Server)
}

// frontends are destinations that the table translated.
type frontends map[frontend]bool

// match finds the connections that were translated by one of them.
func (f frontends) match(c nft.Connection) bool {
	exact, anyAddr, local := destination(c)
	return c.Server != c.Destination && (f[exact] || f[anyAddr] && local)
}
