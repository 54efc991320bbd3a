package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"flyball.dev/controlplane/tokens"
	"flyball.dev/join"
)

// defaultTTL is long enough to set up some hosts, and short enough that a forgotten token does no harm.
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
			rows := []string{"ID\tEXPIRES IN\tDESCRIPTION"}
			for _, t := range all {
				expires := "never"
				if !t.Expires.IsZero() {
					expires = duration.HumanDuration(t.Expires.Sub(now))
				}
				rows = append(rows, fmt.Sprintf("%s\t%s\t%s", t.ID, expires, t.Description))
			}
			return printTable(cmd.OutOrStdout(), rows...)
		},
	}
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
