//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/host/checks"
	"flyball.dev/host/instance"
	"flyball.dev/network"
)

func newCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Show what this host lacks to run Flyball",
		Long: "Show what this host lacks to run Flyball, one line each with the remedy. The exit code is 1 if something is\n" +
			"missing that is required.",
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(cmd)
	output := addOutputFlag(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		set, err := flags.load()
		if err != nil {
			return err
		}
		role := instance.Up
		if set.Joined != nil {
			role = instance.Agent
		}
		want := hostWants(set, role)
		findings := checks.Check(checks.Observe(want), want)
		if err := printFindings(cmd.OutOrStdout(), findings, *output); err != nil {
			return err
		}
		if checks.Missing(findings) != nil {
			return errSilent
		}
		return nil
	}
	return cmd
}

func printFindings(out io.Writer, findings []checks.Finding, format string) error {
	if format != "" {
		return json.NewEncoder(out).Encode(findings)
	}
	for _, f := range findings {
		mark := "✓"
		switch {
		case !f.OK && f.Required:
			mark = "✗"
		case !f.OK:
			mark = "!"
		}
		if _, err := fmt.Fprintf(out, " %s %s\n", mark, f); err != nil {
			return err
		}
	}
	return nil
}

// hostWants is what a role is about to use of the host.
func hostWants(s parts.Set, role instance.Role) checks.Want {
	c := s.Config
	w := checks.Want{
		Ports:  map[string]int{},
		NodeIP: c.NodeAddr, DataDir: c.DataDir,
		Running: len(instance.Running(instance.RunDir, role)) > 0,
		Ranges:  map[string]netip.Prefix{"clusterCIDR": c.ClusterPrefix, "serviceCIDR": c.ServicePrefix},
		// What an earlier run left is no conflict.
		OwnInterfaces: []string{network.Bridge}, OwnAddresses: []netip.Addr{c.DNSAddr},
	}
	w.OwnRoutes, _ = network.Routes() // what cannot be read is not known to be ours
	if role != instance.Agent {
		w.Ports["API server"] = c.Port
	}
	if role != instance.Server {
		w.Ports["node agent"] = c.Kubelet.Port
		w.BundledRuntime = c.CRIEndpoint == ""
		w.Files = s.Bundle.Files()
		if os.Geteuid() == 0 {
			w.Probe = network.Probe
			w.Firewall = func() (network.Firewall, error) { return network.ReadFirewall(c.ClusterPrefix) }
		}
	}
	return w
}
