package main

import (
	"github.com/spf13/cobra"

	"flyball.dev/cmd/flyball/internal/bundle"
	"flyball.dev/cmd/flyball/internal/config"
	"flyball.dev/cmd/flyball/internal/config/v1alpha1"
	"flyball.dev/cmd/flyball/internal/instance"
	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/kubelet/join"
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

// load reads the configuration file, overrides it by the flags that were given, and finds the bundle.
func (f *configFlags) load() (parts.Set, error) {
	var joined *join.Cluster
	cfg, err := config.Load(f.file, func(c *v1alpha1.FlyballConfiguration) (err error) {
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
		joined, err = complete(c)
		return err
	})
	if err != nil {
		return parts.Set{}, err
	}
	b, err := bundle.Find()
	return parts.Set{Config: cfg, Bundle: b, Joined: joined}, err
}

// loadInUse is load, except that without --config the configuration that was last in use counts: what is to be removed is
// what was made. It works on a machine that has lost its network.
func (f *configFlags) loadInUse() (parts.Set, error) {
	if f.file != "" {
		return f.load()
	}
	cfg, err := config.Load("", func(c *v1alpha1.FlyballConfiguration) error {
		if recorded, found := instance.Recorded(instance.RunDir); found {
			*c = recorded
		}
		if f.values.DataDir != "" {
			c.DataDir = f.values.DataDir
		}
		if c.NodeIP == "" {
			c.NodeIP = "127.0.0.1" // removing does not depend on it
		}
		_, _ = complete(c) // what cannot be read is no reason not to remove it
		return nil
	})
	if err != nil {
		return parts.Set{}, err
	}
	b, err := bundle.Find()
	return parts.Set{Config: cfg, Bundle: b}, err
}
