// Package config is the configuration of a server and of a node as components use it: validated,
// with its addresses parsed. Package v1alpha1 has the file that users write.
package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/samber/lo"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"flyball.dev/apis/config/v1alpha1"
)

// Config is a validated configuration. Lists of addresses and ranges have one element for each
// family, in order.
type Config struct {
	v1alpha1.FlyballConfiguration

	// NodeAddrs are the addresses of this host's Node, DNSAddrs those of the cluster DNS.
	NodeAddrs, DNSAddrs []netip.Addr
	// BindAddr is the address that servers listen on.
	BindAddr netip.Addr
	// ClusterPrefixes are the ranges of Pods, ServicePrefixes those of Services.
	ClusterPrefixes, ServicePrefixes []netip.Prefix
	// ControllerKinds are Controllers.Kinds.
	ControllerKinds []schema.GroupVersion
}

// Parse validates c, whose defaults are set, and returns it with its addresses parsed. The error
// reports everything that is wrong.
func Parse(c v1alpha1.FlyballConfiguration) (*Config, error) {
	if err := v1alpha1.Validate(&c).ToAggregate(); err != nil {
		return nil, fmt.Errorf("validating the configuration: %w", err)
	}
	c.Kubelet.RootDir = filepath.Clean(c.Kubelet.RootDir)
	c.DataDir, c.Server = filepath.Clean(c.DataDir), strings.TrimRight(c.Server, "/")
	return &Config{
		FlyballConfiguration: c,
		NodeAddrs:            []netip.Addr{netip.MustParseAddr(c.NodeIP)},
		BindAddr:             netip.MustParseAddr(c.BindAddress),
		DNSAddrs:             []netip.Addr{netip.MustParseAddr(c.ClusterDNS)},
		ClusterPrefixes:      []netip.Prefix{netip.MustParsePrefix(c.ClusterCIDR)},
		ServicePrefixes:      []netip.Prefix{netip.MustParsePrefix(c.ServiceCIDR)},
		ControllerKinds: lo.Map(c.Controllers.Kinds, func(kind string, _ int) schema.GroupVersion {
			return lo.Must(schema.ParseGroupVersion(kind))
		}),
	}, nil
}
