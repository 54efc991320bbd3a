package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"flyball.dev/controlplane/envtest"
	"flyball.dev/controlplane/programs"
	"flyball.dev/host/instance"
	"flyball.dev/simulated"
)

// programNamed returns what this program is when it is called by the name in path: envtest calls
// the first two, and people kubectl. On Windows the name has an extension.
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
	mode, err := envtest.Begin(args)
	if err != nil {
		return err
	}
	var check programs.PodCheck
	if mode.Nodes > 0 {
		check = simulated.CheckAnnotations
	}
	return programs.KubeAPIServer(args, behind(mode), check, os.Getenv(envtest.TokenVariable))
}

func etcd(args []string) error {
	if _, err := envtest.Begin(args); err != nil {
		return err
	}
	return programs.Etcd(args)
}

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
