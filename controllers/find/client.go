package find

import (
	"fmt"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
)

// Cluster returns how to reach the cluster of a kubeconfig, by default that of $KUBECONFIG, or
// within a Pod the Pod's own.
func Cluster(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		if cfg, err := rest.InClusterConfig(); err == nil {
			return cfg, nil
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w; name its kubeconfig with --kubeconfig", err)
	}
	return cfg, nil
}

// NewClient returns a client for a person's commands, which knows upstream's kinds and ours.
func NewClient(cfg *rest.Config) (client.WithWatch, error) {
	cfg.QPS, cfg.WarningHandlerWithContext = -1, rest.NoWarnings{}
	known := runtime.NewScheme()
	_ = scheme.AddToScheme(known)
	_ = v1alpha1.AddToScheme(known)
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: known})
	if err != nil {
		return nil, fmt.Errorf("reaching the cluster at %s: %w", cfg.Host, err)
	}
	return c, nil
}
