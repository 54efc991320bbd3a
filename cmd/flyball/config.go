//go:build linux

package main

import (
	"cmp"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/cmd/flyball/internal/wiring"
	"flyball.dev/host"
	"flyball.dev/host/bundle"
	"flyball.dev/host/instance"
	"flyball.dev/join"
)

// configFlags are the flags that set the configuration. Those that are given override the file.
type configFlags struct {
	file   string
	values v1alpha1.FlyballConfiguration
}

func addConfigFlags(cmd *cobra.Command) *configFlags {
	f := &configFlags{}
	flags := cmd.Flags()
	flags.StringVar(&f.file, "config", "", "configuration file, see docs/configuration.md")
	flags.StringVar(&f.values.DataDir, "data-dir", "", "where everything lies that must survive a restart (default "+v1alpha1.DefaultDataDir+")")
	flags.StringVar(&f.values.NodeName, "node-name", "", "name of this machine's Node (default: the host name)")
	flags.StringVar(&f.values.NodeIP, "node-ip", "", "address at which others reach this machine (default: the default route's)")
	flags.IntVar(&f.values.Port, "port", 0, "port of the API server (default 6443)")
	flags.StringVar(&f.values.ClusterCIDR, "cluster-cidr", "", "address range of Pods (default "+v1alpha1.DefaultClusterCIDR+")")
	flags.StringVar(&f.values.ServiceCIDR, "service-cidr", "", "address range of Services (default "+v1alpha1.DefaultServiceCIDR+")")
	flags.StringVar(&f.values.ClusterDomain, "cluster-domain", "", "DNS domain of the cluster (default "+v1alpha1.DefaultClusterDomain+")")
	flags.StringVar(&f.values.CRIEndpoint, "cri-endpoint", "", "socket of another container runtime (default: the bundled containerd)")
	flags.IntVarP(&f.values.Logging.Verbosity, "verbosity", "v", 0, "level of detail of the log, 0 to 10")
	return f
}

// override sets what the flags say.
func (f *configFlags) override(c *v1alpha1.FlyballConfiguration) {
	v := f.values
	c.DataDir, c.NodeName, c.NodeIP = cmp.Or(v.DataDir, c.DataDir), cmp.Or(v.NodeName, c.NodeName), cmp.Or(v.NodeIP, c.NodeIP)
	c.ClusterCIDR, c.ServiceCIDR = cmp.Or(v.ClusterCIDR, c.ClusterCIDR), cmp.Or(v.ServiceCIDR, c.ServiceCIDR)
	c.ClusterDomain, c.CRIEndpoint = cmp.Or(v.ClusterDomain, c.ClusterDomain), cmp.Or(v.CRIEndpoint, c.CRIEndpoint)
	c.Server, c.Token = cmp.Or(v.Server, c.Server), cmp.Or(v.Token, c.Token)
	c.Port, c.Logging.Verbosity = cmp.Or(v.Port, c.Port), cmp.Or(v.Logging.Verbosity, c.Logging.Verbosity)
}

// readJoined returns the cluster that the host with this configuration has joined; nil if it has joined none.
func readJoined(c v1alpha1.FlyballConfiguration) (*join.Cluster, error) {
	return join.Read(filepath.Join(cmp.Or(c.DataDir, v1alpha1.DefaultDataDir), "agent"))
}

// load reads the configuration file, overrides it by the flags that were given, and finds the bundle.
func (f *configFlags) load() (wiring.Config, error) {
	c, err := v1alpha1.ReadFile(f.file)
	if err != nil {
		return wiring.Config{}, err
	}
	f.override(&c)
	joined, err := readJoined(c)
	if err == nil {
		err = joined.Complete(&c)
	}
	if err != nil {
		return wiring.Config{}, err
	}
	return wire(c, joined)
}

func wire(c v1alpha1.FlyballConfiguration, joined *join.Cluster) (wiring.Config, error) {
	completed, err := host.Complete(c)
	if err != nil {
		return wiring.Config{}, err
	}
	b, err := bundle.Find()
	return wiring.Config{Config: completed, RunDir: instance.RunDir, Bundle: b, Joined: joined}, err
}

// loadInUse is load for commands that remove or show what is there. Without --config, the configuration that was last in use
// counts, which runDir records.
//
// It works on a host that has lost its network, and on one whose files are damaged: it warns of what it cannot read. Only the
// data directory, the container runtime and the directories of CNI matter. A file that was named and cannot be read is an
// error, because it may name another data directory.
func (f *configFlags) loadInUse(runDir string, warn func(error)) (wiring.Config, error) {
	if f.file != "" {
		var set wiring.Config
		c, err := v1alpha1.ReadFile(f.file)
		if err == nil {
			set, err = f.tolerant(c, warn)
		}
		if err != nil {
			err = fmt.Errorf("%w; without --config, the configuration that was last in use counts, and --data-dir", err)
		}
		return set, err
	}
	recorded, err := instance.Recorded(runDir)
	if err != nil {
		warn(fmt.Errorf("%w; --data-dir finds what lies elsewhere than in %s", err, v1alpha1.DefaultDataDir))
	}
	set, err := f.tolerant(recorded, warn)
	if err != nil && recorded.DataDir != "" {
		warn(fmt.Errorf("using the configuration that was last in use: %w", err))
		return f.tolerant(v1alpha1.FlyballConfiguration{
			DataDir: recorded.DataDir, CRIEndpoint: recorded.CRIEndpoint,
			CNIConfDir: recorded.CNIConfDir, CNIBinDir: recorded.CNIBinDir,
		}, warn)
	}
	return set, err
}

// tolerant completes c without what removing does not need, and which may be unknown: the name and the address of the node.
func (f *configFlags) tolerant(c v1alpha1.FlyballConfiguration, warn func(error)) (wiring.Config, error) {
	f.override(&c)
	joined, err := readJoined(c)
	if err != nil {
		warn(err)
	}
	_ = joined.Complete(&c) // a contradiction is no reason not to remove both
	c.NodeIP, c.NodeName = cmp.Or(c.NodeIP, "127.0.0.1"), cmp.Or(c.NodeName, "unknown")
	return wire(c, nil)
}
