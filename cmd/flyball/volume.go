package main

import (
	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"

	"flyball.dev/storage/list"
)

func newVolumeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "volume",
		Short: "Show the volumes of the cluster",
	}
	f := addClusterFlags(cmd)
	listing := &cobra.Command{
		Use: "list", Short: "List volumes: the claim and the Pods of each, its node, size, use and path", Args: cobra.NoArgs,
		Long: "List the volumes of all namespaces: the claim and the Pods of each, its node, size, use and path. How much of a\n" +
			"volume is in use, the node says while a Pod has it. docs/storage.md says more.",
	}
	output := addOutputFlag(listing, "json")
	listing.RunE = f.withClient(func(cmd *cobra.Command, client kubernetes.Interface, _ []string) error {
		volumes, err := list.Volumes(cmd.Context(), client)
		if err != nil {
			return err
		}
		rows := []string{list.Heading}
		for _, v := range volumes {
			rows = append(rows, v.Row())
		}
		return output.print(cmd, volumes, rows)
	})
	cmd.AddCommand(listing)
	return cmd
}
