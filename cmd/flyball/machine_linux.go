package main

import (
	"cmp"
	"fmt"

	"github.com/spf13/cobra"

	"flyball.dev/apis/config"
	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/host/bundle"
	"flyball.dev/host/instance"
	"flyball.dev/join"
)

// machineCommands make a machine a part of a cluster. Nodes are Linux.
func machineCommands() []*cobra.Command {
	return []*cobra.Command{
		newUpCommand(), newServerCommand(), newAgentCommand(), newDownCommand(), newStatusCommand(), newCheckCommand(), newImageCommand(),
	}
}

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
	for target, value := range map[*string]string{
		&c.DataDir: v.DataDir, &c.NodeName: v.NodeName, &c.NodeIP: v.NodeIP, &c.ClusterCIDR: v.ClusterCIDR,
		&c.ServiceCIDR: v.ServiceCIDR, &c.ClusterDomain: v.ClusterDomain, &c.CRIEndpoint: v.CRIEndpoint,
		&c.Server: v.Server, &c.Token: v.Token,
	} {
		if value != "" {
			*target = value
		}
	}
	for target, value := range map[*int]int{&c.Port: v.Port, &c.Logging.Verbosity: v.Logging.Verbosity} {
		if value != 0 {
			*target = value
		}
	}
}

// load reads the configuration file, overrides it by the flags that were given, and finds the bundle.
func (f *configFlags) load() (parts.Set, error) {
	var joined *join.Cluster
	cfg, err := config.Load(f.file, func(c *v1alpha1.FlyballConfiguration) (err error) {
		f.override(c)
		if joined, err = readJoined(c); err != nil {
			return err
		}
		return complete(c, joined)
	})
	if err != nil {
		return parts.Set{}, err
	}
	b, err := bundle.Find()
	return parts.Set{Config: cfg, Bundle: b, Joined: joined}, err
}

// loadInUse is load for those who remove or look into what is there. Without --config, the configuration that was last in
// use counts: what is to be removed is what was made.
//
// It works on a machine that has lost its network, and on one whose files are damaged: tell is told what cannot be read. All
// that is really needed is the data directory, and which container runtime it is and where it reads its CNI configuration. So a file that was
// named and cannot be read is an error: whatever it says may be about another directory.
func (f *configFlags) loadInUse(runDir string, tell func(error)) (parts.Set, error) {
	var recorded v1alpha1.FlyballConfiguration
	if f.file == "" {
		var err error
		if recorded, err = instance.Recorded(runDir); err != nil {
			tell(fmt.Errorf("%w; --data-dir finds what lies elsewhere than in %s", err, v1alpha1.DefaultDataDir))
		}
	}
	cfg, err := f.loadRecorded(recorded, tell)
	if err != nil && recorded.DataDir != "" {
		tell(fmt.Errorf("using the configuration that was last in use: %w", err))
		cfg, err = f.loadRecorded(v1alpha1.FlyballConfiguration{
			DataDir: recorded.DataDir, CRIEndpoint: recorded.CRIEndpoint,
			CNIConfDir: recorded.CNIConfDir, CNIBinDir: recorded.CNIBinDir,
		}, tell)
	}
	if err != nil && f.file != "" {
		err = fmt.Errorf("%w; without --config, the configuration that was last in use counts, and --data-dir", err)
	}
	if err != nil {
		return parts.Set{}, err
	}
	b, err := bundle.Find()
	return parts.Set{Config: cfg, Bundle: b}, err
}

func (f *configFlags) loadRecorded(recorded v1alpha1.FlyballConfiguration, tell func(error)) (*config.Config, error) {
	return config.Load(f.file, func(c *v1alpha1.FlyballConfiguration) error {
		if f.file == "" {
			*c = recorded
		}
		f.override(c)
		joined, err := readJoined(c)
		if err != nil {
			tell(err)
		}
		_ = complete(c, joined) // a contradiction is no reason not to remove both
		// Removing depends on neither, and neither may be to be had.
		c.NodeIP, c.NodeName = cmp.Or(c.NodeIP, "127.0.0.1"), cmp.Or(c.NodeName, "unknown")
		return nil
	})
}
