package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"flyball.dev/controlplane/envtest"
	"flyball.dev/controlplane/programs"
)

// programNamed returns what this program is when it is called by the name in path, which has an extension on Windows: envtest
// starts the first two with the flags of upstream's programs, and people type kubectl.
func programNamed(path string) func(args []string) error {
	switch strings.TrimSuffix(filepath.Base(path), ".exe") {
	case "kube-apiserver":
		return kubeAPIServer
	case "etcd":
		return etcd
	case "kubectl":
		return kubectl
	}
	return nil
}

func kubeAPIServer(args []string) error {
	mode, err := envtest.FromEnvironment()
	if err != nil {
		return err
	}
	if err := envtest.EndWithParent(args); err != nil {
		return err
	}
	return programs.KubeAPIServer(args, behind(mode), podCheck(mode), os.Getenv(envtest.TokenVariable))
}

// etcd checks the mode too, though it does not depend on it: etcd starts first, and a mistake shows before anything has
// started.
func etcd(args []string) error {
	if _, err := envtest.FromEnvironment(); err != nil {
		return err
	}
	if err := envtest.EndWithParent(args); err != nil {
		return err
	}
	return programs.Etcd(args)
}

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
			executable, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding this program: %w", err)
			}
			dir, err := envtest.Assets(executable)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), dir)
			return err
		},
	}
	cmd.AddCommand(newEnvtestPartCommand())
	return cmd
}

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
			if err := setUpLogging(cmd.ErrOrStderr(), verbosity); err != nil {
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
			run := behind(mode)
			if !mode.Controllers {
				run = nodes{mode.Nodes}.Run
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
