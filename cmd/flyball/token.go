package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"flyball.dev/controlplane/tokens"
	"flyball.dev/join"
)

// defaultTTL is long enough to set up some hosts. A forgotten token expires soon.
const defaultTTL = 24 * time.Hour

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create, list and delete the tokens that machines join with",
		Long: "Create, list and delete the tokens that machines join this cluster with. A token lets any number of machines join\n" +
			"until it expires; machines that have joined do not need it any more. docs/joining.md says more.",
	}
	f := addClusterFlags(cmd)
	cmd.AddCommand(
		newTokenCreateCommand(f),
		&cobra.Command{
			Use: "list", Short: "List the tokens that machines can join with, without their secrets", Args: cobra.NoArgs,
			RunE: f.withClient(listTokens),
		},
		&cobra.Command{
			Use: "delete ID...", Short: "Delete tokens, so that nobody can join with them any more", Args: cobra.MinimumNArgs(1),
			RunE: f.withClient(deleteTokens),
		})
	return cmd
}

func newTokenCreateCommand(f clusterFlags) *cobra.Command {
	cmd := &cobra.Command{
		Use: "create", Short: "Create a token, and print the command that joins a machine with it", Args: cobra.NoArgs,
		Example: "  flyball token create --ttl 2h\n  flyball token create --description 'rack 3'",
	}
	ttl := cmd.Flags().Duration("ttl", defaultTTL, "how long machines can join with it; 0 is for ever")
	description := cmd.Flags().String("description", "", "what it is for, shown by `flyball token list`")
	cmd.PreRunE = func(*cobra.Command, []string) error {
		if *ttl < 0 {
			return errors.New("creating a token: --ttl must not be negative")
		}
		return nil
	}
	cmd.RunE = f.withClient(func(cmd *cobra.Command, client kubernetes.Interface, _ []string) error {
		server, ca, err := tokens.Server(cmd.Context(), client)
		if err != nil {
			return err
		}
		t, err := tokens.Create(cmd.Context(), client, *ttl, *description, time.Now())
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "flyball agent --server %s --token %s\n", server, join.Token{ID: t.ID, Secret: t.Secret, Pin: join.Pin(ca)})
		}
		return err
	})
	return cmd
}

func listTokens(cmd *cobra.Command, client kubernetes.Interface, _ []string) error {
	now := time.Now()
	all, err := tokens.List(cmd.Context(), client, now)
	if err != nil {
		return err
	}
	rows := []string{tokens.Heading}
	for _, t := range all {
		rows = append(rows, t.Row(now))
	}
	return printRows(cmd, rows)
}

func deleteTokens(cmd *cobra.Command, client kubernetes.Interface, ids []string) error {
	var errs []error
	for _, id := range ids {
		err := tokens.Delete(cmd.Context(), client, id)
		if err == nil {
			fmt.Fprintf(cmd.OutOrStdout(), "token %s deleted\n", id[:min(len(id), 6)])
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
