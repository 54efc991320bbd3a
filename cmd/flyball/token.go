package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"flyball.dev/controlplane/tokens"
	"flyball.dev/host/instance"
	"flyball.dev/join"
)

// defaultTTL is long enough to set up some machines, and short enough to be forgotten.
const defaultTTL = 24 * time.Hour

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create, list and delete the tokens that machines join with",
		Long: "Create, list and delete the tokens that machines join this cluster with. A token lets any number of machines join\n" +
			"until it expires; machines that have joined do not need it any more. docs/joining.md says more.",
	}
	cluster := addClusterFlags(cmd)
	cmd.AddCommand(newTokenCreateCommand(cluster), newTokenListCommand(cluster), newTokenDeleteCommand(cluster))
	return cmd
}

// clientset is connect for those who need upstream's typed client.
func (f clusterFlags) clientset() (kubernetes.Interface, error) {
	if *f.KubeConfig == "" && os.Getenv(clientcmd.RecommendedConfigPathEnvVar) == "" {
		*f.KubeConfig = instance.AdminKubeconfig
	}
	if err := passProxy(instance.AdminKubeconfig); err != nil {
		return nil, err
	}
	cfg, err := f.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("finding the cluster: %w; run this on the server, or name its kubeconfig with --kubeconfig", err)
	}
	client, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("reaching the cluster at %s: %w", cfg.Host, err)
	}
	return client, nil
}

func newTokenCreateCommand(cluster clusterFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create", Short: "Create a token, and print the command that joins a machine with it", Args: cobra.NoArgs,
		Example: "  flyball token create --ttl 2h\n  flyball token create --description 'rack 3'",
	}
	ttl := cmd.Flags().Duration("ttl", defaultTTL, "how long machines can join with it; 0 is for ever")
	description := cmd.Flags().String("description", "", "what it is for, shown by `flyball token list`")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if *ttl < 0 {
			return errors.New("creating a token: --ttl must not be negative")
		}
		client, err := cluster.clientset()
		if err != nil {
			return err
		}
		server, ca, err := tokens.Server(cmd.Context(), client)
		if err != nil {
			return err
		}
		t, err := tokens.Create(cmd.Context(), client, *ttl, *description, time.Now())
		if err != nil {
			return err
		}
		whole := join.Token{ID: t.ID, Secret: t.Secret, Pin: join.Pin(ca)}
		fmt.Fprintf(cmd.OutOrStdout(), "flyball agent --server %s --token %s\n", server, whole)
		return nil
	}
	return cmd
}

func newTokenListCommand(cluster clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the tokens that machines can join with, without their secrets", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := cluster.clientset()
			if err != nil {
				return err
			}
			now := time.Now()
			all, err := tokens.List(cmd.Context(), client, now)
			if err != nil {
				return err
			}
			return printTokens(cmd.OutOrStdout(), all, now)
		},
	}
}

func printTokens(out io.Writer, all []tokens.Token, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "ID\tEXPIRES IN\tDESCRIPTION")
	for _, t := range all {
		left := "never"
		if !t.Expires.IsZero() {
			left = duration.HumanDuration(t.Expires.Sub(now))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", t.ID, left, t.Description)
	}
	return w.Flush()
}

func newTokenDeleteCommand(cluster clusterFlags) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID...", Short: "Delete tokens, so that nobody can join with them any more", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, ids []string) error {
			client, err := cluster.clientset()
			if err != nil {
				return err
			}
			var errs []error
			for _, id := range ids {
				err := tokens.Delete(cmd.Context(), client, id)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "token %s deleted\n", id[:min(len(id), 6)])
				}
				errs = append(errs, err)
			}
			return errors.Join(errs...)
		},
	}
}
