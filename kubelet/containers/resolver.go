package containers

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"strings"
	"sync"

	"github.com/samber/lo"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// systemdResolvConf has the upstream servers of the one that systemd-resolved runs on the loopback.
const systemdResolvConf = "/run/systemd/resolve/resolv.conf"

// HostDNS is the resolv.conf of the host, without the name servers on its loopback.
type HostDNS struct {
	*runtimeapi.DNSConfig
	// Loopback are those servers, if there is no other. Only Pods on the host's network reach them.
	Loopback []string
}

// Resolver reads the resolv.conf of the host for each Pod: DHCP or a VPN replaces it at any time.
type Resolver struct {
	file, upstream string // upstream has the servers behind one on the loopback

	mu   sync.Mutex
	last HostDNS
}

// HostDNS returns the present resolv.conf of the host, or the last one that could be read.
func (r *Resolver) HostDNS() HostDNS {
	if r == nil {
		return HostDNS{}
	}
	_ = r.refresh() // fails while the file is being replaced
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

func (r *Resolver) refresh() error {
	raw, err := os.ReadFile(r.file)
	if errors.Is(err, fs.ErrNotExist) {
		// Without the file, the name server is on this host, see resolv.conf(5).
		raw, err = []byte("nameserver 127.0.0.1\n"), nil
	}
	if err != nil {
		return fmt.Errorf("reading the host's name servers: %w", err)
	}
	upstream, _ := os.ReadFile(r.upstream) // exists with systemd-resolved only
	dns := hostDNS(parseResolvConf(string(raw)), parseResolvConf(string(upstream)).Servers)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = dns
	return nil
}

// hostDNS replaces the servers on the loopback, which a Pod with a network of its own does not
// reach, by the upstream servers of systemd-resolved.
func hostDNS(conf *runtimeapi.DNSConfig, upstream []string) HostDNS {
	isLoopback := func(server string, _ int) bool {
		addr, err := netip.ParseAddr(server)
		return err == nil && addr.Unmap().IsLoopback()
	}
	dns := HostDNS{DNSConfig: conf}
	dns.Loopback, conf.Servers = lo.FilterReject(conf.Servers, isLoopback)
	if len(dns.Loopback) > 0 {
		conf.Servers = lo.Uniq(append(conf.Servers, lo.Reject(upstream, isLoopback)...))
	}
	if len(conf.Servers) > 0 {
		dns.Loopback = nil
	}
	return dns
}

// parseResolvConf adds up name servers and options; the last search line wins.
func parseResolvConf(content string) *runtimeapi.DNSConfig {
	dns := &runtimeapi.DNSConfig{}
	for line := range strings.Lines(content) {
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		switch rest := fields[1:]; fields[0] {
		case "nameserver":
			dns.Servers = append(dns.Servers, rest[:min(1, len(rest))]...)
		case "search":
			// The last dot of a domain makes no difference; a dot alone is no domain.
			domains := lo.Map(rest, func(s string, _ int) string { return strings.TrimSuffix(s, ".") })
			dns.Searches = lo.Compact(domains)
		case "options":
			dns.Options = append(dns.Options, rest...)
		}
	}
	return dns
}
