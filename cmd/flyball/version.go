package main

import (
	"github.com/spf13/cobra"

	"flyball.dev/host/bundle"
)

func newVersionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Show the versions of Flyball and of every bundled part", Args: cobra.NoArgs}
	output := addOutputFlag(cmd, "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := bundle.Find()
		if err != nil {
			return err
		}
		v := b.Versions()
		return output.print(cmd, v, v.Rows())
	}
	return cmd
}
