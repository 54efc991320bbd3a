//go:build linux

package main

import (
	"github.com/samber/lo"
	"github.com/spf13/cobra"

	"flyball.dev/apis/config"
	"flyball.dev/apis/config/v1alpha1"
	"flyball.dev/cmd/flyball/wiring"
	"flyball.dev/host"
	"flyball.dev/host/bundle"
	"flyball.dev/host/instance"
	"flyball.dev/join"
)

// configFlags are the flags that set the configuration.
type configFlags struct{ host.Source }

func addConfigFlags(cmd *cobra.Command) *configFlags {
	f := &configFlags{}
	flags, values := cmd.Flags(), &f.Flags
	flags.StringVar(&f.File, "config", "", "configuration file, see docs/configuration.md")
	flags.StringVar(&values.DataDir, "data-dir", "", "where everything lies that must survive a restart (default "+v1alpha1.DefaultDataDir+")")
	flags.StringVar(&values.Kubelet.RootDir, "root-dir", "", "where the node agent keeps the files of Pods (default "+v1alpha1.DefaultRootDir+")")
	flags.StringVar(&values.NodeName, "node-name", "", "name of this machine's Node (default: the host name)")
	flags.StringVar(&values.NodeIP, "node-ip", "", "address at which others reach this machine (default: the default route's)")
	flags.IntVar(&values.Port, "port", 0, "port of the API server (default 6443)")
	flags.StringVar(&values.ClusterCIDR, "cluster-cidr", "", "address range of Pods (default "+v1alpha1.DefaultClusterCIDR+")")
	flags.StringVar(&values.ServiceCIDR, "service-cidr", "", "address range of Services (default "+v1alpha1.DefaultServiceCIDR+")")
	flags.StringVar(&values.ClusterDomain, "cluster-domain", "", "DNS domain of the cluster (default "+v1alpha1.DefaultClusterDomain+")")
	flags.StringVar(&values.CRIEndpoint, "cri-endpoint", "", "socket of another container runtime (default: the bundled containerd)")
	flags.IntVarP(&values.Logging.Verbosity, "verbosity", "v", 0, "level of detail of the log, 0 to 10")
	return f
}

// loadInUse is for commands that remove or show what is there, see host.Source.
func (f *configFlags) loadInUse(warn func(error)) (wiring.Config, error) {
	c, err := f.LoadInUse(instance.RunDir, warn)
	return wire(c, nil, err)
}

// wire returns what components are configured from, if there is no error.
func wire(c *config.Config, joined *join.Cluster, err error) (wiring.Config, error) {
	if err != nil {
		return wiring.Config{}, err
	}
	role := lo.Ternary(joined != nil, instance.Agent, instance.Up)
	b, err := bundle.Find()
	return wiring.Config{Config: c, Role: role, Joined: joined, RunDir: instance.RunDir, Bundle: b}, err
}
