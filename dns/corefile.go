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
	// systemdResolvConf names the servers behind systemd's local one.
	systemdResolvConf = "/run/systemd/resolve/resolv.conf"
	// maxUpstreams is the number of servers that CoreDNS takes.
	maxUpstreams = 15
)

// corefile returns CoreDNS's configuration. What is in the cluster is in memory and is not cached, so that a new Service
// resolves at once, also for who asked too early.
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
`, cfg.Port, cfg.Address, domain, domain, domain)
	if len(servers) > 0 {
		b.WriteString("\tforward .")
		for _, s := range servers {
			b.WriteString(" " + s.String())
		}
		b.WriteString(" {\n\t\tmax_concurrent 1000\n\t}\n")
	}
	b.WriteString("}\n")
	return b.Bytes()
}

// upstreams returns the servers in the resolv.conf file, without our own address: a question that came back to us would
// go round for ever. A server on the loopback, systemd's, may itself ask us, so the servers in the file behind, systemd's
// list of the real ones, are taken instead where there are any. A missing file means no servers.
func upstreams(file, behind string, own netip.Addr) ([]netip.Addr, error) {
	if file == "" {
		file = resolvConf
	}
	servers, err := nameservers(file)
	if err != nil {
		return nil, err
	}
	stub := func(a netip.Addr) bool { return a.Unmap().IsLoopback() }
	if slices.ContainsFunc(servers, stub) || slices.Contains(servers, own) {
		found, err := nameservers(behind)
		if found = slices.DeleteFunc(found, stub); err == nil && len(found) > 0 {
			servers = append(slices.DeleteFunc(servers, stub), found...)
		}
	}
	var kept []netip.Addr
	for _, s := range servers {
		if s != own && !slices.Contains(kept, s) && len(kept) < maxUpstreams {
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
