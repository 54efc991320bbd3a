package simulated

import (
	"fmt"
	"net/netip"
	"sync"
)

// addresses hands out the addresses of a range, each to one Pod at a time. Nothing
// answers at them.
type addresses struct {
	mu   sync.Mutex
	from netip.Prefix
	last netip.Addr
	used map[netip.Addr]bool
}

func newAddresses(from netip.Prefix) *addresses {
	from = from.Masked()
	// The first is the network's, the second would be the gateway's.
	return &addresses{from: from, last: from.Addr().Next(), used: map[netip.Addr]bool{}}
}

// address of one Pod, and the range that it is from.
type address struct {
	ip   netip.Addr
	from *addresses
}

// take returns the next free address, so that the address of a Pod is not soon another's.
func (a *addresses) take() (address, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	begun := a.last
	for ip := begun.Next(); ip != begun; ip = ip.Next() {
		if !a.from.Contains(ip) {
			ip = a.from.Addr().Next()
			if ip == begun {
				break
			}
			continue
		}
		if !a.used[ip] {
			a.used[ip], a.last = true, ip
			return address{ip, a}, nil
		}
	}
	return address{}, fmt.Errorf("no address of %s is free", a.from)
}

func (a *addresses) give(back address) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, back.ip)
}
