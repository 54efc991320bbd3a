package flyballtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// portLease is how long a port is reserved among tests that do not use it yet.
const portLease = 2 * time.Minute

// port is one of this machine that nobody listens at. Tests of other processes are kept from it by a file; whoever else
// takes it meanwhile is noticed when it is used.
type port struct {
	number int
	file   string
}

func (p *port) address() string { return net.JoinHostPort(host, strconv.Itoa(p.number)) }

// release lets others have the port.
func (p *port) release() { _ = os.Remove(p.file) }

func newPort() (*port, error) {
	dir := filepath.Join(os.TempDir(), "flyballtest-ports")
	// Everybody's, as the directory that it is in; a user who may not write to it goes without.
	if err := os.Mkdir(dir, 0o777); err == nil {
		_ = os.Chmod(dir, 0o777|os.ModeSticky)
	}
	for range 100 {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return nil, fmt.Errorf("finding a free port: %w", err)
		}
		number := listener.Addr().(*net.TCPAddr).Port
		p := &port{number: number, file: filepath.Join(dir, strconv.Itoa(number))}
		taken := p.taken()
		_ = listener.Close()
		if !taken {
			return p, nil
		}
	}
	return nil, errors.New("finding a free port: other tests have reserved all that were tried")
}

// taken reserves the port, and says whether another test had done so before.
func (p *port) taken() bool {
	if info, err := os.Stat(p.file); err == nil && time.Since(info.ModTime()) > portLease {
		_ = os.Remove(p.file) // whoever reserved it uses it by now, and the listener says that nobody does
	}
	f, err := os.OpenFile(p.file, os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_ = f.Close()
	}
	return errors.Is(err, os.ErrExist)
}
