package simulated

import (
	"fmt"
	"net/netip"
	"sync"
)

// addresses allocates the addresses of a range. Nothing answers at them.
type addresses struct {
	mu   sync.Mutex
	from netip.Prefix
	last netip.Addr
	used map[netip.Addr]bool
}

func newAddresses(from netip.Prefix) *addresses {
	from = from.Masked()
	// The first is that of the network, the second that of the gateway.
	return &addresses{from: from, last: from.Addr().Next(), used: map[netip.Addr]bool{}}
}

// allocate goes through the whole range before it uses a released address again.
func (a *addresses) allocate() (netip.Addr, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	gateway := a.from.Addr().Next()
	for ip := a.last.Next(); ; ip = ip.Next() {
		switch {
		case !a.from.Contains(ip):
			ip = gateway // and go on after it
		case !a.used[ip]:
			a.used[ip], a.last = true, ip
			return ip, nil
		}
		if ip == a.last {
			return netip.Addr{}, fmt.Errorf("no address of %s is free", a.from)
		}
	}
}

func (a *addresses) release(ip netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.used, ip)
}
