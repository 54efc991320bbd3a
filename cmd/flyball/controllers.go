package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers"
)

// controllersFlags are the flags of `flyball controllers`; config/manager and the Helm chart call it with them.
type controllersFlags struct {
	kubeconfig string
	kinds      []string
	verbosity  int
	config     controllers.Config
}

func newControllersCommand() *cobra.Command {
	f := &controllersFlags{}
	cmd := &cobra.Command{
		Use:   "controllers",
		Short: "Run the Deployment and ReplicaSet loops alone, against any cluster",
		Long: "Run the Deployment and ReplicaSet loops alone, against any cluster: as a Pod in it, or from here against a\n" +
			"kubeconfig. By default they serve apps.flyball.dev only, since every cluster has somebody for apps/v1 already.",
		Args: cobra.NoArgs,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "the cluster (default: $KUBECONFIG; within a Pod, the Pod's own cluster)")
	flags.StringSliceVar(&f.kinds, "kinds", []string{v1alpha1.GroupVersion.String()}, "API groups and versions to serve: apps.flyball.dev/v1alpha1, apps/v1, or both")
	flags.BoolVar(&f.config.LeaderElection, "leader-elect", false, "work only while holding the Lease flyball-controllers")
	flags.StringVar(&f.config.LeaseNamespace, "leader-elect-namespace", "", "namespace of the Lease (default kube-system)")
	flags.StringVar(&f.config.MetricsAddress, "metrics-address", "", "address of /metrics, which is HTTPS and asks the API server who may read (default: none)")
	flags.StringVar(&f.config.HealthAddress, "health-address", "", "address of /healthz and /readyz (default: none)")
	flags.IntVarP(&f.verbosity, "verbosity", "v", 0, "level of detail of the log, 0 to 10")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := setUpLogging(cmd.ErrOrStderr(), f.verbosity); err != nil {
			return err
		}
		cfg, err := f.complete()
		if err != nil {
			return err
		}
		ctx, stop := untilSignal(cmd.Context())
		defer stop()
		return controllers.Run(ctx, cfg)
	}
	return cmd
}

// complete turns flags into the loops' configuration.
func (f *controllersFlags) complete() (controllers.Config, error) {
	cfg := f.config
	for _, kind := range f.kinds {
		version, err := schema.ParseGroupVersion(strings.TrimSpace(kind))
		if err != nil {
			return cfg, fmt.Errorf("reading --kinds: %w; write apps.flyball.dev/v1alpha1, for example", err)
		}
		cfg.Kinds = append(cfg.Kinds, version)
	}
	client, err := clusterConfig(f.kubeconfig)
	cfg.Client = client
	return cfg, err
}

// clusterConfig reaches the cluster of a kubeconfig, by default that of $KUBECONFIG, or within a Pod the Pod's own.
func clusterConfig(kubeconfig string) (*rest.Config, error) {
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
