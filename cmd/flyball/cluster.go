package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/host/instance"
)

// clusterFlags are kubectl's flags that name a cluster, a user and a namespace.
type clusterFlags struct{ *genericclioptions.ConfigFlags }

func addClusterFlags(cmd *cobra.Command) clusterFlags {
	flags := clusterFlags{genericclioptions.NewConfigFlags(true)}
	flags.AddFlags(cmd.PersistentFlags())
	return flags
}

// connect returns a client of the cluster, and the namespace that is meant.
func (f clusterFlags) connect() (client.WithWatch, string, error) {
	if *f.KubeConfig == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		if _, err := os.Stat(instance.AdminKubeconfig); err == nil {
			*f.KubeConfig = instance.AdminKubeconfig // this machine's cluster, as for `flyball kubectl`
		}
	}
	if err := passProxy(instance.AdminKubeconfig); err != nil {
		return nil, "", err
	}
	namespace, _, err := f.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("finding the namespace: %w; name it with --namespace", err)
	}
	cfg, err := f.ToRESTConfig()
	if err != nil {
		return nil, "", fmt.Errorf("finding the cluster: %w; name its kubeconfig with --kubeconfig", err)
	}
	cfg.QPS = -1
	cfg.WarningHandlerWithContext = rest.NoWarnings{}
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = v1alpha1.AddToScheme(known)
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: known})
	if err != nil {
		return nil, "", fmt.Errorf("reaching the cluster at %s: %w", cfg.Host, err)
	}
	return c, namespace, nil
}
