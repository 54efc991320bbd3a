//go:build linux

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"flyball.dev/cmd/flyball/internal/config/v1alpha1"
	"flyball.dev/cmd/flyball/internal/instance"
	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/cmd/flyball/internal/progress"
	"flyball.dev/join"
)

func newAgentCommand() *cobra.Command {
	cmd, flags := newRoleCommand(instance.Agent, "Start only the node agent of this machine",
		"Start only the node agent: container runtime, node network, kubelet, service proxy and DNS, until it is interrupted.\n"+
			"With --server and --token this machine joins the cluster of another one, as `flyball token create` prints it there;\n"+
			"later starts need neither. Without, it is the node of the `flyball server` of this machine.")
	cmd.Flags().StringVar(&flags.values.Server, "server", "", "URL of the server whose cluster to join, such as https://192.0.2.1:6443")
	cmd.Flags().StringVar(&flags.values.Token, "token", "", "what to join with, from `flyball token create` on the server")
	return cmd
}

// loadRole is load for a role that is about to start. A node agent that has to join does so here, before anything is
// started: what is in the way is told at once.
func (f *configFlags) loadRole(ctx context.Context, role instance.Role) (parts.Set, error) {
	set, err := f.load()
	if err != nil {
		return set, err
	}
	switch {
	case role == instance.Agent:
		return f.loadAgent(ctx, set)
	case set.Joined != nil:
		return set, fmt.Errorf("starting `flyball %s`: this machine is node %s of the cluster at %s (%s); `flyball agent` starts it, `flyball down --purge` makes it leave",
			role, set.Joined.NodeName, set.Joined.Server, set.AgentDir())
	case set.Config.Server != "":
		return set, fmt.Errorf("starting `flyball %s`: the configuration says that this machine joins the cluster at %s, which `flyball agent` does; remove server and token from it to make a cluster here",
			role, set.Config.Server)
	}
	return set, nil
}

// loadAgent returns the set of a node agent: one that joins, one that has joined, or the one of the server of this machine.
func (f *configFlags) loadAgent(ctx context.Context, set parts.Set) (parts.Set, error) {
	c := set.Config
	if c.Server == "" || len(instance.Running(instance.RunDir, instance.Agent)) > 0 {
		return set, nil
	}
	if set.Joined == nil {
		if made := filepath.Join(c.DataDir, "server", "cluster.yaml"); exists(made) {
			return set, fmt.Errorf("joining the cluster at %s: the data directory %s belongs to a server (%s): this machine has a cluster of its own; `flyball down --purge` gives that up with everything in it, --data-dir chooses another directory",
				c.Server, c.DataDir, made)
		}
		if c.Token == "" {
			return set, fmt.Errorf("joining the cluster at %s: a token is needed; `flyball token create` on the server prints the whole command", c.Server)
		}
	}
	if os.Geteuid() != 0 {
		return set, errors.New("starting the node agent: running as an ordinary user; run flyball as root, for example with sudo")
	}
	needed, token, err := mustJoin(set, time.Now())
	moved := set.Joined != nil && (c.Server != set.Joined.Server || c.NodeIP != set.Joined.NodeIPs.String())
	if err == nil && (needed || moved) {
		err = ownAddress(c.NodeAddr) // it is kept
	}
	if err != nil {
		return set, err
	}
	if needed {
		began := time.Now()
		_, err = join.Join(ctx, join.Config{Dir: set.AgentDir(), Server: c.Server, Token: token, NodeName: c.NodeName, NodeIPs: []netip.Addr{c.NodeAddr}})
		if err == nil {
			progress.New(os.Stdout, began).Done("joined "+c.Server, time.Since(began))
		}
	} else if moved {
		err = set.Joined.Move(set.AgentDir(), c.Server, []netip.Addr{c.NodeAddr})
	}
	if err != nil {
		return set, err
	}
	// What the cluster is, takes the place of the defaults. The token has done its work.
	set, err = f.load()
	if err == nil {
		set.Config.Token = ""
	}
	return set, err
}

// ownAddress refuses an address that this machine does not have: nobody would reach the node.
func ownAddress(wanted netip.Addr) error {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return fmt.Errorf("looking for the addresses of this machine: %w", err)
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

// mustJoin tells whether this machine has to join (again), and with what.
func mustJoin(set parts.Set, now time.Time) (bool, join.Token, error) {
	var token join.Token
	if given := set.Config.Token; given != "" {
		var err error
		if token, err = join.ParseToken(given); err != nil {
			return false, token, err
		}
	}
	if set.Joined == nil {
		return true, token, nil
	}
	expired, is := join.Expired(set.AgentDir(), now)
	switch {
	case is && expired.IsZero() && set.Config.Token == "":
		return false, token, fmt.Errorf("starting node %s: its certificate in %s cannot be read; join again with a token of `flyball token create` on the server",
			set.Joined.NodeName, set.AgentDir())
	case is && set.Config.Token == "":
		return false, token, fmt.Errorf("starting node %s: its certificate expired on %s, and it was not there to renew it (the clock of this machine says %s); join again with a token of `flyball token create` on the server",
			set.Joined.NodeName, expired.UTC().Format(time.DateTime), now.UTC().Format(time.DateTime))
	case set.Config.Token == "":
		return false, token, nil
	}
	pin, err := join.PinOf(set.AgentDir())
	if err != nil {
		return false, token, err
	}
	if pin != token.Pin {
		return false, token, fmt.Errorf("joining the cluster at %s: this machine is node %s of another cluster, at %s; `flyball down --purge` makes it leave that one",
			set.Config.Server, set.Joined.NodeName, set.Joined.Server)
	}
	return is, token, nil
}

// readJoined is what the machine with this configuration has joined; nil if it has joined nothing.
func readJoined(c *v1alpha1.FlyballConfiguration) (*join.Cluster, error) {
	return join.Read(filepath.Join(cmp.Or(c.DataDir, v1alpha1.DefaultDataDir), "agent"))
}

// complete sets what a machine that has joined knows of its cluster. What the configuration says may not contradict that,
// except for the addresses of the server and of the machine, which may have changed.
func complete(c *v1alpha1.FlyballConfiguration, joined *join.Cluster) error {
	if joined == nil {
		return nil
	}
	c.Server, c.NodeIP = cmp.Or(c.Server, joined.Server), cmp.Or(c.NodeIP, joined.NodeIPs.String())
	var err error
	for _, f := range []struct {
		name  string
		field *string
		value string
	}{
		{"nodeName", &c.NodeName, joined.NodeName},
		{"clusterCIDR", &c.ClusterCIDR, joined.ClusterCIDRs.String()},
		{"serviceCIDR", &c.ServiceCIDR, joined.ServiceCIDRs.String()},
		{"clusterDNS", &c.ClusterDNS, joined.ClusterDNS.String()},
		{"clusterDomain", &c.ClusterDomain, joined.ClusterDomain},
	} {
		if *f.field != "" && *f.field != f.value {
			err = errors.Join(err, fmt.Errorf("checking %s: this machine has joined the cluster at %s with %s, not %s; leave it out", f.name, joined.Server, f.value, *f.field))
		}
		*f.field = f.value
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
