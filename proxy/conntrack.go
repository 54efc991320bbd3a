package proxy

import (
	"net/netip"
	"slices"

	"flyball.dev/nft"
)

// conntrackTable is the part of nft.Kernel that deletes conntrack entries.
type conntrackTable interface {
	// DeleteConnections deletes the entries that match, so that the nftables rules are applied to
	// the connection's next packet.
	DeleteConnections(family nft.Family, match func(nft.Connection) bool) error
}

// frontend is a destination that the nftables table translates.
type frontend struct {
	addr     ip // zero: any address of this host
	protocol Protocol
	port     uint16
}

// frontendsOf returns the two frontends that may translate c: exact has c's address and port,
// anyAddr only its port. anyAddr counts only if local is true, that is, if the address is this
// host's.
func frontendsOf(c nft.Connection) (exact, anyAddr frontend, local bool) {
	p := Protocol(c.Protocol)
	exact = frontend{toIP(c.Destination.Addr()), p, c.Destination.Port()}
	return exact, frontend{ip{}, p, exact.port}, c.Local
}

// udpEndpoints has an entry for each UDP frontend whose conntrack entries may be stale, because it
// lost an endpoint, got its first, or is written anew: its current endpoints, or an empty list if
// it has none or is gone.
type udpEndpoints map[frontend][]netip.AddrPort

func newUDPEndpoints(flows []Flow) udpEndpoints {
	u := udpEndpoints{}
	for _, f := range flows {
		u[frontend{f.Addr, UDP, f.Port}] = f.Endpoints
	}
	return u
}

// stale reports whether c is a UDP connection through one of the frontends that goes to an endpoint
// which the frontend does not have, or to none. A frontend for any address of this host may share
// its port with a local process. A connection that such a process answers is stale only if the
// frontend has endpoints.
func (u udpEndpoints) stale(c nft.Connection) bool {
	if Protocol(c.Protocol) != UDP {
		return false
	}
	exact, anyAddr, local := frontendsOf(c)
	endpoints, ok := u[exact]
	if !ok {
		if !local {
			return false // a port of another host
		}
		endpoints, ok = u[anyAddr]
		if len(endpoints) == 0 && c.Server == c.Destination {
			return false // a process of this host answers
		}
	}
	return ok && !slices.Contains(endpoints, c.Server)
}

// removedFrontends are the frontends of an nftables table that was removed.
type removedFrontends map[frontend]bool

// translated reports whether c was translated for one of the frontends.
func (f removedFrontends) translated(c nft.Connection) bool {
	exact, anyAddr, local := frontendsOf(c)
	return c.Server != c.Destination && (f[exact] || f[anyAddr] && local)
}
