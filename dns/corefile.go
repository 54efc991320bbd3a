package dns

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

const (
	resolvConf = "/etc/resolv.conf"
	// systemdResolvConf has the servers that systemd's local one forwards to.
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
	// maxUpstreams is the number of servers that CoreDNS takes.
	maxUpstreams = 15
)

// corefile returns CoreDNS's configuration. Names of the cluster are in memory and are not cached,
// so that a new Service resolves at once, even after a query that came too early.
func corefile(cfg Config, servers []netip.Addr) []byte {
	var b bytes.Buffer
	domain := strings.TrimSuffix(cfg.ClusterDomain, ".")
	fmt.Fprintf(&b, `.:%d {
	bind %s
	report
	loadbalance
	cache 30 {
		disable success %s
		disable denial %s
	}
	cluster %s in-addr.arpa ip6.arpa {
		pods insecure
		fallthrough in-addr.arpa ip6.arpa
		ttl 30
	}
`, cfg.Port, join(cfg.Addresses), domain, domain, domain)
	if len(servers) > 0 {
		fmt.Fprintf(&b, "\tforward . %s {\n\t\tmax_concurrent 1000\n\t}\n", join(servers))
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// join separates addresses by spaces, as CoreDNS's configuration does.
func join(addresses []netip.Addr) string {
	return strings.Trim(fmt.Sprint(addresses), "[]")
}

// upstreams returns the servers in the resolv.conf file, without our own addresses: a query must
// not come back to us. A server on the loopback, systemd's, may itself forward to us, so it is
// replaced by the servers in the file systemd, if there are any. A missing file means no servers.
func upstreams(file, systemd string, own []netip.Addr) ([]netip.Addr, error) {
	if file == "" {
		file = resolvConf
	}
	servers, err := nameservers(file)
	if err != nil {
		return nil, err
	}
	stub := func(a netip.Addr) bool { return a.Unmap().IsLoopback() }
	if slices.ContainsFunc(servers, func(a netip.Addr) bool { return stub(a) || slices.Contains(own, a) }) {
		found, err := nameservers(systemd)
		if found = slices.DeleteFunc(found, stub); err == nil && len(found) > 0 {
			servers = append(slices.DeleteFunc(servers, stub), found...)
		}
	}
	var kept []netip.Addr
	for _, s := range servers {
		if !slices.Contains(own, s) && !slices.Contains(kept, s) && len(kept) < maxUpstreams {
			kept = append(kept, s)
		}
	}
	return kept, nil
}

func nameservers(file string) ([]netip.Addr, error) {
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the host's DNS servers: %w", err)
	}
	defer func() { _ = f.Close() }()
	conf, err := dns.ClientConfigFromReader(f)
	if err != nil {
		return nil, fmt.Errorf("reading the host's DNS servers from %s: %w", file, err)
	}
	var servers []netip.Addr
	for _, s := range conf.Servers {
		if a, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, a)
		}
	}
	return servers, nil
}
