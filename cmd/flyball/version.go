package main

import (
	"github.com/spf13/cobra"

	"flyball.dev/host/bundle"
)

// versions is what `flyball version` prints.
type versions struct {
	Flyball string             `json:"flyball"`
	Parts   []bundle.Component `json:"parts"`
}

func newVersionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Show the versions of Flyball and of every bundled part", Args: cobra.NoArgs}
	output := addOutputFlag(cmd, "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := bundle.Find()
		if err != nil {
			return err
		}
		v := versions{Flyball: bundle.Version(), Parts: b.Components()}
		if *output != "" {
			return printAs(cmd.OutOrStdout(), *output, v)
		}
		rows := []string{"flyball\t" + v.Flyball}
		for _, c := range v.Parts {
			rows = append(rows, c.Name+"\t"+c.Version)
		}
		return printTable(cmd.OutOrStdout(), rows...)
	}
	return cmd
}
