package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/find"
	"flyball.dev/host/instance"
)

// clusterFlags are kubectl's flags for a cluster. The default is this host's cluster.
type clusterFlags struct{ *genericclioptions.ConfigFlags }

func addClusterFlags(cmd *cobra.Command) clusterFlags {
	flags := clusterFlags{genericclioptions.NewConfigFlags(true)}
	flags.AddFlags(cmd.PersistentFlags())
	return flags
}

// connect returns a client of the cluster, and the namespace. Without a cluster on this host,
// kubectl's default is used.
func (f clusterFlags) connect() (client.WithWatch, string, error) {
	if _, err := os.Stat(instance.AdminKubeconfig); err == nil {
		if *f.KubeConfig, err = instance.Kubeconfig(*f.KubeConfig); err != nil {
			return nil, "", err
		}
	}
	namespace, _, err := f.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("finding the namespace: %w; name it with --namespace", err)
	}
	cfg, err := f.ToRESTConfig()
	if err != nil {
		return nil, "", fmt.Errorf("finding the cluster: %w; name its kubeconfig with --kubeconfig", err)
	}
	c, err := find.NewClient(cfg)
	return c, namespace, err
}

// withClient runs a command with upstream's typed client of the cluster.
func (f clusterFlags) withClient(run func(*cobra.Command, kubernetes.Interface, []string) error) runE {
	return func(cmd *cobra.Command, args []string) (err error) {
		if *f.KubeConfig, err = instance.Kubeconfig(*f.KubeConfig); err != nil {
			return err
		}
		cfg, err := f.ToRESTConfig()
		if err != nil {
			return fmt.Errorf("finding the cluster: %w; run this on the server, or name its kubeconfig with --kubeconfig", err)
		}
		client, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			return fmt.Errorf("reaching the cluster at %s: %w", cfg.Host, err)
		}
		return run(cmd, client, args)
	}
}
