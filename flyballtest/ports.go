package flyballtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

const (
	// The range is below that of outgoing connections, which could use a port meanwhile, and below
	// that of NodePorts.
	firstPort, lastPort = 20000, 29999
	// portTries is how many ports are tried. Even if half of the range is in use, one of them is
	// free.
	portTries = 100
)

// port is a free TCP port of this host. Each cluster, of any process and user, reserves its port by
// listening on the UDP port of the same number, which the system releases when the process dies. If
// another program uses the port meanwhile, the start of the server fails and is retried.
type port struct {
	number int
	holder net.PacketConn
}

func (p *port) address() string { return net.JoinHostPort(host, strconv.Itoa(p.number)) }

// release releases the port.
func (p *port) release() { _ = p.holder.Close() }

func newPort() (*port, error) {
	var last error
	for range portTries {
		p := &port{number: firstPort + rand.IntN(lastPort-firstPort+1)} //nolint:gosec // it need not be secret
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
	return nil, fmt.Errorf("finding a free port between %d and %d: none of %d is: %w", firstPort, lastPort, portTries, last)
}
