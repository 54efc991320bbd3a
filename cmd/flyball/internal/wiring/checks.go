//go:build linux

package wiring

import (
	"net/netip"
	"os"

	"github.com/samber/lo"

	"flyball.dev/host/checks"
	"flyball.dev/host/instance"
	"flyball.dev/network"
)

// CheckHost checks what the host lacks for the role.
func (c Config) CheckHost(role instance.Role) []checks.Finding {
	w := checks.Want{
		Ports:  map[string]int{},
		NodeIP: c.NodeAddrs[0], DataDir: c.DataDir,
		Running: len(instance.Running(c.RunDir, role)) > 0,
		Ranges:  map[string]netip.Prefix{"clusterCIDR": c.ClusterPrefixes[0], "serviceCIDR": c.ServicePrefixes[0]},
		// An earlier run may have left these.
		OwnInterfaces: []string{network.Bridge}, OwnAddresses: c.DNSAddrs,
	}
	w.OwnRoutes, _ = network.Routes() // routes that cannot be read are not known to be ours
	if role != instance.Agent {
		w.Ports["API server"] = c.Port
	}
	if role == instance.Server {
		return checks.Check(checks.Observe(w), w)
	}
	w.Ports["node agent"] = c.Kubelet.Port
	w.BundledRuntime = c.CRIEndpoint == ""
	w.Files = c.Bundle.Files()
	h := checks.Observe(w)
	if os.Geteuid() == 0 {
		h.Kernel = network.Probe()
		var firewall network.Firewall
		firewall, h.FirewallError = network.ReadFirewall(c.ClusterPrefixes[0])
		h.Firewall = checks.Firewall{Forward: chains(firewall.Forward), Input: chains(firewall.Input), Legacy: firewall.Legacy}
	}
	return checks.Check(h, w)
}

func chains(in []network.FirewallChain) []checks.Chain {
	return lo.Map(in, func(c network.FirewallChain, _ int) checks.Chain {
		return checks.Chain{Family: c.Family(), Table: c.Table, Name: c.Name, Owned: c.Owned}
	})
}
