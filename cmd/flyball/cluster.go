package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/host/instance"
)

// clusterFlags are kubectl's flags that name a cluster, a user and a namespace. The default is this host's cluster.
type clusterFlags struct{ *genericclioptions.ConfigFlags }

func addClusterFlags(cmd *cobra.Command) clusterFlags {
	flags := clusterFlags{genericclioptions.NewConfigFlags(true)}
	flags.AddFlags(cmd.PersistentFlags())
	return flags
}

// connect returns a client of the cluster, and the namespace that is meant. On a host without a cluster the default is
// kubectl's.
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
	cfg.QPS, cfg.WarningHandlerWithContext = -1, rest.NoWarnings{}
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = v1alpha1.AddToScheme(known)
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: known})
	if err != nil {
		return nil, "", fmt.Errorf("reaching the cluster at %s: %w", cfg.Host, err)
	}
	return c, namespace, nil
}

// clientset returns upstream's typed client of the cluster.
func (f clusterFlags) clientset() (c *kubernetes.Clientset, err error) {
	if *f.KubeConfig, err = instance.Kubeconfig(*f.KubeConfig); err != nil {
		return nil, err
	}
	cfg, err := f.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w; run this on the server, or name its kubeconfig with --kubeconfig", err)
	}
	if c, err = kubernetes.NewForConfig(cfg); err != nil {
		return nil, fmt.Errorf("reaching the cluster at %s: %w", cfg.Host, err)
	}
	return c, nil
}
