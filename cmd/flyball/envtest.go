package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"flyball.dev/cmd/flyball/internal/envtest"
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
