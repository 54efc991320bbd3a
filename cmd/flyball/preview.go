package main

import (
	"errors"

	"github.com/samber/lo"
	"github.com/spf13/cobra"

	"flyball.dev/controllers/preview"
)

func newPlanCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "plan (KIND/NAME | -f FILE)",
		Short: "Show what the loop of a Deployment or ReplicaSet would do next, and why",
		Long: "Show what the loop of a Deployment or ReplicaSet would do next, and why, without doing it. With -f it shows what\n" +
			"it would do if the manifest were applied, which it is not.",
		Example: "  flyball plan deployment/web\n  flyball plan replicaset.apps.flyball.dev/web-5d8f\n  flyball plan -f web.yaml",
		Args:    cobra.MaximumNArgs(1),
	}
	cluster := addClusterFlags(cmd)
	cmd.Flags().StringVarP(&file, "filename", "f", "", "a manifest that is not applied; - is standard input")
	output := addOutputFlag(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (len(args) == 1) == (file != "") {
			return errors.New("planning: name either an object (KIND/NAME) or a manifest (-f FILE)")
		}
		c, namespace, err := cluster.connect()
		if err != nil {
			return err
		}
		var previews []preview.Preview
		if file != "" {
			previews, err = preview.OfFile(cmd.Context(), c, cmd.InOrStdin(), file, namespace)
		} else {
			previews = make([]preview.Preview, 1)
			previews[0], err = preview.Of(cmd.Context(), c, namespace, args[0])
		}
		if err != nil {
			return err
		}
		return output.print(cmd, previews, lo.FlatMap(previews, func(p preview.Preview, _ int) []string { return p.Rows() }))
	}
	return cmd
}
