package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/config"
	"flyball.dev/controllers"
	"flyball.dev/controllers/find"
	"flyball.dev/controlplane"
	"flyball.dev/controlplane/envtest"
	"flyball.dev/controlplane/programs"
	"flyball.dev/simulated"
)

func newEnvtestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "envtest",
		Short: "Print the folder of programs for controller-runtime's envtest",
		Long: "Print the folder in which controller-runtime's envtest finds kube-apiserver, etcd and kubectl, all of them this\n" +
			"program, and make it if needed:\n\n" +
			"    export KUBEBUILDER_ASSETS=$(flyball envtest)\n\n" +
			"With " + envtest.Variable + "=controllers in the environment of the tests, the controllers and the scheduler work behind\n" +
			"that API server; " + envtest.Variable + "=controllers,nodes=3 adds simulated nodes. See docs/envtest.md.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := envtest.FromEnvironment(); err != nil {
				return err
			}
			dir, err := envtest.Assets()
			if err == nil {
				fmt.Fprintln(cmd.OutOrStdout(), dir)
			}
			return err
		},
	}
	cmd.AddCommand(newEnvtestPartCommand())
	return cmd
}

// newEnvtestPartCommand is what package flyballtest starts next to a kube-apiserver. flyballtest
// kills it and starts it again when it restores a checkpoint, so that controllers remember nothing.
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
			if err := setUpLogging(cmd.ErrOrStderr(), verbosity); err != nil {
				return err
			}
			rest.SetDefaultWarningHandler(rest.NoWarnings{})
			client, err := find.RESTConfig(kubeconfig)
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
			run := behind(mode)
			if !mode.Controllers {
				run = nodes(mode.Nodes).run
			}
			err = run(ctx, server, func() { fmt.Fprintln(cmd.OutOrStdout(), "ready") })
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("running what is behind kube-apiserver: %w", err)
			}
			return nil
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

// awaitedNodes is how many nodes are waited for at most: a test suite waits 20 seconds by default.
const awaitedNodes = 100

// behind is what the mode asks for behind the API server of a test suite, nil if that is nothing.
func behind(m envtest.Mode) programs.Behind {
	if !m.Controllers {
		return nil
	}
	b := programs.Loops{
		Awaited: []programs.Behind{loops{appsv1.SchemeGroupVersion}.run, programs.RunControllers}, Late: runOurLoops,
	}
	if m.Nodes > 0 {
		b.Awaited = append(b.Awaited, nodes(m.Nodes).run)
	}
	return b.Run
}

// loops are our loops for one version of the kinds.
type loops struct{ version schema.GroupVersion }

func (l loops) run(ctx context.Context, server programs.Server, up func()) error {
	return controllers.Run(ctx, controllers.Config{Client: rest.CopyConfig(server.Client), Kinds: []schema.GroupVersion{l.version}, Ready: up})
}

// runOurLoops installs the kinds of apps.flyball.dev and runs their loops. The API server takes a
// second to process the definitions, for which most suites need not wait.
func runOurLoops(ctx context.Context, server programs.Server, up func()) error {
	if err := controlplane.Apply(ctx, server.Client, []fs.FS{config.CRDs}); err != nil {
		return fmt.Errorf("installing the kinds of apps.flyball.dev: %w", err)
	}
	return loops{v1alpha1.GroupVersion}.run(ctx, server, up)
}

// nodes is how many simulated nodes there are.
type nodes int

func (n nodes) run(ctx context.Context, server programs.Server, up func()) error {
	return simulated.Run(ctx, simulated.Config{Client: rest.CopyConfig(server.Client), Nodes: int(n), Awaited: awaitedNodes, Ready: up})
}
