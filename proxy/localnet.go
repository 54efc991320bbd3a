package proxy

import (
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
)

// localnet lets the host reach host ports on 127.0.0.1: the kernel routes packets with a loopback
// source to a Pod's link only if route_localnet is set there. The chain guard-loopback keeps the
// opposite direction shut.
type localnet struct {
	handle *netlink.Handle
	// done are the links that are set, by index: a bridge that is made anew has another.
	done  map[int]bool
	write func(path string) error
}

func newLocalnet(handle *netlink.Handle) *localnet {
	return &localnet{handle, map[int]bool{}, func(path string) error {
		return os.WriteFile(path, []byte("1"), 0o644)
	}}
}

func (l *localnet) allow(added []Element) error {
	for _, e := range added {
		if e.Map != HostPorts {
			continue
		}
		addr := e.Value.Addr.addr()
		routes, err := l.handle.RouteGet(addr.AsSlice())
		if err != nil || len(routes) == 0 {
			return fmt.Errorf("finding the way to Pod %s: %w", addr, err)
		}
		index := routes[0].LinkIndex
		if l.done[index] {
			continue
		}
		link, err := l.handle.LinkByIndex(index)
		if err != nil {
			return fmt.Errorf("finding the link to Pod %s: %w", addr, err)
		}
		name := link.Attrs().Name
		if err := l.write("/proc/sys/net/ipv4/conf/" + name + "/route_localnet"); err != nil {
			return fmt.Errorf("setting route_localnet on %s: %w", name, err)
		}
		l.done[index] = true
	}
	return nil
}
