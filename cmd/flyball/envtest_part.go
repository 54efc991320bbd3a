package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"flyball.dev/cmd/flyball/internal/envtest"
	"flyball.dev/controlplane/programs"
	"flyball.dev/host/logging"
)

// newEnvtestPartCommand is what package flyballtest starts next to a kube-apiserver. It is a process of its own there, so
// that it can be killed and started again while the API server goes on: nothing of what controllers remember survives a
// checkpoint that is restored.
func newEnvtestPartCommand() *cobra.Command {
	var (
		kubeconfig string
		mode       envtest.Mode
		await      bool
		verbosity  int
	)
	cmd := &cobra.Command{
		Use:    "part -- FLAGS OF KUBE-APISERVER",
		Short:  "Run controllers or simulated nodes against a kube-apiserver that a test has started",
		Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if !mode.Controllers && mode.Nodes < 1 {
				return errors.New("starting a part of a test's cluster: neither --controllers nor --nodes is given")
			}
			if err := logging.Setup(cmd.ErrOrStderr(), verbosity); err != nil {
				return err
			}
			rest.SetDefaultWarningHandler(rest.NoWarnings{})
			client, err := clusterConfig(kubeconfig)
			if err != nil {
				return err
			}
			server, err := programs.ServerOf(args, client)
			if err != nil {
				return err
			}
			if await && !envtest.AwaitParent() {
				return nil
			}
			if err := envtest.EndWithParent(nil); err != nil {
				return err
			}
			ctx, stop := untilSignal(cmd.Context())
			defer stop()
			return envtest.RunParts(ctx, mode, server, func() { fmt.Fprintln(cmd.OutOrStdout(), "ready") })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&kubeconfig, "kubeconfig", "", "how to reach the kube-apiserver, by a token of somebody who may do everything")
	flags.BoolVar(&mode.Controllers, "controllers", false, "run the controllers and the scheduler")
	flags.IntVar(&mode.Nodes, "nodes", 0, "how many simulated nodes to run")
	flags.BoolVar(&await, "await", false, "do nothing before there is a line on standard input")
	flags.IntVarP(&verbosity, "verbosity", "v", 0, "level of detail of the log, 0 to 10")
	return cmd
}
