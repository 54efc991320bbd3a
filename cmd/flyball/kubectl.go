package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"flyball.dev/controlplane/programs"
	"flyball.dev/host/instance"
)

func newKubectlCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl [command]",
		Short:              "The matching kubectl, for this machine's cluster",
		Long:               "The matching kubectl. Without KUBECONFIG and --kubeconfig it talks to this machine's cluster.",
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return kubectl(args) },
	}
}

func kubectl(args []string) error {
	kubeconfig, err := instance.Kubeconfig(os.Getenv("KUBECONFIG"))
	if err == nil {
		err = os.Setenv("KUBECONFIG", kubeconfig)
	}
	if err != nil {
		return fmt.Errorf("setting KUBECONFIG: %w", err)
	}
	return programs.Kubectl(args)
}
