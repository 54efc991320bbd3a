package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/samber/lo"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// systemdResolvConf names the servers behind the one that systemd-resolved runs on the loopback.
const systemdResolvConf = "/run/systemd/resolve/resolv.conf"

// resolver reads the host's resolv.conf for each Pod: DHCP or a VPN replaces it at any time.
type resolver struct {
	file, behind string

	mu   sync.Mutex
	last HostDNS
}

// config is the name service of the host as it is now, or was when the file could be read last.
func (r *resolver) config() HostDNS {
	_ = r.refresh() // one that is just being replaced
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *resolver) refresh() error {
	raw, err := os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		// As resolv.conf(5) has it: without one, the name server is on this host.
		raw, err = []byte("nameserver 127.0.0.1\n"), nil
	}
	if err != nil {
		return fmt.Errorf("reading the host's name servers: %w", err)
	}
	behind, _ := os.ReadFile(r.behind) // without systemd-resolved there is none
	dns := hostDNS(parseResolvConf(string(raw)), parseResolvConf(string(behind)).Servers)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = dns
	return nil
}

// hostDNS puts the servers behind systemd's into the place of those on the loopback, which a Pod with a network of its own
// does not reach.
func hostDNS(conf *runtimeapi.DNSConfig, behind []string) HostDNS {
	loopback, reached := lo.FilterReject(conf.Servers, func(s string, _ int) bool { return isLoopback(s) })
	if len(loopback) > 0 {
		reached = lo.Uniq(append(reached, lo.Reject(behind, func(s string, _ int) bool { return isLoopback(s) })...))
	}
	conf.Servers = reached
	dns := HostDNS{DNSConfig: conf}
	if len(reached) == 0 {
		dns.Loopback = slices.Clone(loopback)
	}
	return dns
}

func isLoopback(server string) bool {
	addr, err := netip.ParseAddr(server)
	return err == nil && addr.Unmap().IsLoopback()
}

// parseResolvConf: name servers add up, the last search line wins, options add up by name.
func parseResolvConf(content string) *runtimeapi.DNSConfig {
	dns := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		switch rest := fields[1:]; fields[0] {
		case "nameserver":
			if len(rest) > 0 {
				dns.Servers = append(dns.Servers, rest[0])
			}
		case "search":
			dns.Searches = nil
			for _, s := range rest {
				// With and without its last dot a domain is the same; a dot alone is none.
				if s = strings.TrimSuffix(s, "."); s != "" {
					dns.Searches = append(dns.Searches, s)
				}
			}
		case "options":
			dns.Options = append(dns.Options, rest...)
		}
	}
	return dns
}
