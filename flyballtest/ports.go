package flyballtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	// Ports are looked for below those that systems give to outgoing connections, which would take them meanwhile, and below
	// those of NodePorts.
	firstPort, lastPort = 20000, 29999
	// portTries is how many ports are looked at. Even if half of them are taken, one is found.
	portTries = 100
)

// port is one of this machine that nobody listens at. The package's clusters, whichever process and user they belong to,
// keep off each other's by holding the UDP port of the same number, which the system lets go when the process dies.
// Whoever else takes it meanwhile is noticed when it is used.
type port struct {
	number int
	holder net.PacketConn
}

func (p *port) address() string { return net.JoinHostPort(host, strconv.Itoa(p.number)) }

// release lets others have the port.
func (p *port) release() { _ = p.holder.Close() }

func newPort() (*port, error) {
	var last error
	for range portTries {
		p := &port{number: firstPort + rand.IntN(lastPort-firstPort+1)} //nolint:gosec // nobody is to be kept from guessing it
		if p.holder, last = net.ListenPacket("udp", p.address()); last != nil {
			continue
		}
		listener, err := net.Listen("tcp", p.address())
		if err == nil {
			_ = listener.Close()
			return p, nil
		}
		last = err
		p.release()
	}
	return nil, fmt.Errorf("finding a free port between %d and %d: none of %d was: %w", firstPort, lastPort, portTries, last)
}
