//go:build linux

package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"flyball.dev/apis/config/v1alpha1"
)

// Ensure makes this host a node of the cluster at cfg.Server, unless it is one. joined is the
// cluster that it has joined before, nil if it has joined none. token is what --token was given; a
// host that has joined needs none. Ensure also records that the server or this host has another
// address now. It returns true if it joined.
func Ensure(ctx context.Context, joined *Cluster, cfg Config, token string) (bool, error) {
	if joined == nil {
		dataDir := filepath.Dir(cfg.Dir)
		made := filepath.Join(dataDir, "server", "cluster.yaml")
		if _, err := os.Stat(made); err == nil {
			return false, fmt.Errorf("joining the cluster at %s: the data directory %s belongs to a server (%s): this machine has a cluster of its own; `flyball down --purge` gives that up with everything in it, --data-dir chooses another directory",
				cfg.Server, dataDir, made)
		}
		if token == "" {
			return false, fmt.Errorf("joining the cluster at %s: a token is needed; `flyball token create` on the server prints the whole command", cfg.Server)
		}
	}
	if os.Geteuid() != 0 {
		return false, errors.New("starting the node agent: running as an ordinary user; run flyball as root, for example with sudo")
	}
	needed, err := mustJoin(joined, &cfg, token, time.Now())
	if err != nil {
		return false, err
	}
	moved := joined != nil && (cfg.Server != joined.Server || listOf(cfg.NodeIPs).String() != joined.NodeIPs.String())
	if !needed && !moved {
		return false, nil
	}
	for _, ip := range cfg.NodeIPs { // they are kept
		if err := checkAddress(ip); err != nil {
			return false, err
		}
	}
	if needed {
		_, err := Join(ctx, cfg)
		return err == nil, err
	}
	return false, joined.Move(cfg.Dir, cfg.Server, cfg.NodeIPs)
}

// mustJoin reports whether this host has to join, for the first time or again, and parses the token
// into cfg.
func mustJoin(joined *Cluster, cfg *Config, token string, now time.Time) (bool, error) {
	if token != "" {
		var err error
		if cfg.Token, err = ParseToken(token); err != nil {
			return false, err
		}
	}
	if joined == nil {
		return true, nil
	}
	expired, is := Expired(cfg.Dir, now)
	switch {
	case is && expired.IsZero() && token == "":
		return false, fmt.Errorf("starting node %s: its certificate in %s cannot be read; join again with a token of `flyball token create` on the server",
			joined.NodeName, cfg.Dir)
	case is && token == "":
		return false, fmt.Errorf("starting node %s: its certificate expired on %s, and it was not there to renew it (the clock of this machine says %s); join again with a token of `flyball token create` on the server",
			joined.NodeName, expired.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
	case token == "":
		return false, nil
	}
	pin, err := PinOf(cfg.Dir)
	if err != nil {
		return false, err
	}
	if pin != cfg.Token.Pin {
		return false, fmt.Errorf("joining the cluster at %s: this machine is node %s of another cluster, at %s; `flyball down --purge` makes it leave that one",
			cfg.Server, joined.NodeName, joined.Server)
	}
	return is, nil
}

// checkAddress refuses an address that this host does not have, at which others would not reach the
// node.
func checkAddress(wanted netip.Addr) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("reading the addresses of this machine: %w", err)
	}
	var found []string
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		switch {
		case err != nil:
		case prefix.Addr() == wanted:
			return nil
		case prefix.Addr().Is4() && !prefix.Addr().IsLoopback():
			found = append(found, prefix.Addr().String())
		}
	}
	return fmt.Errorf("choosing the address of this node: %s is no address of this machine, which has %s; --node-ip takes one of these", wanted, strings.Join(found, ", "))
}

// Complete sets in a configuration what the joined cluster decides. The configuration must not
// contradict the cluster, except for the addresses of the server and of this host, which may have
// changed. Without a cluster it does nothing.
func (c *Cluster) Complete(cfg *v1alpha1.FlyballConfiguration) error {
	if c == nil {
		return nil
	}
	if cfg.Server == "" {
		cfg.Server = c.Server
	}
	if cfg.NodeIP == "" {
		cfg.NodeIP = c.NodeIPs.String()
	}
	var err error
	for _, f := range []struct {
		name  string
		field *string
		value string
	}{
		{"nodeName", &cfg.NodeName, c.NodeName},
		{"clusterCIDR", &cfg.ClusterCIDR, c.ClusterCIDRs.String()},
		{"serviceCIDR", &cfg.ServiceCIDR, c.ServiceCIDRs.String()},
		{"clusterDNS", &cfg.ClusterDNS, c.ClusterDNS.String()},
		{"clusterDomain", &cfg.ClusterDomain, c.ClusterDomain},
	} {
		if *f.field != "" && *f.field != f.value {
			err = errors.Join(err, fmt.Errorf("checking %s: this machine has joined the cluster at %s with %s, not %s; leave it out",
				f.name, c.Server, f.value, *f.field))
		}
		*f.field = f.value
	}
	return err
}
