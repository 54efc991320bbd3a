package main

import (
	"github.com/spf13/cobra"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers"
	"flyball.dev/controllers/find"
)

// controllersFlags are the flags that config/manager and the Helm chart use.
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

// complete parses the flags into the loops' configuration.
func (f *controllersFlags) complete() (cfg controllers.Config, err error) {
	cfg = f.config
	if cfg.Kinds, err = controllers.ParseKinds(f.kinds); err == nil {
		cfg.Client, err = find.RESTConfig(f.kubeconfig)
	}
	return cfg, err
}
