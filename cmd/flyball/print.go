package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// outputFlag is -o: empty, or one of a few formats.
type outputFlag struct {
	format  string
	allowed []string
}

func addOutputFlag(cmd *cobra.Command, formats ...string) *outputFlag {
	o := &outputFlag{allowed: formats}
	cmd.Flags().VarP(o, "output", "o", "print as "+strings.Join(formats, " or "))
	return o
}

func (o *outputFlag) String() string { return o.format }
func (o *outputFlag) Type() string   { return "format" }

func (o *outputFlag) Set(format string) error {
	if !slices.Contains(o.allowed, format) {
		return fmt.Errorf("must be %s", strings.Join(o.allowed, " or "))
	}
	o.format = format
	return nil
}

// print prints value in the format, or rows if there is none.
func (o *outputFlag) print(cmd *cobra.Command, value any, rows []string) error {
	if o.format == "" {
		return printRows(cmd, rows)
	}
	return o.printOrYAML(cmd, value)
}

// printOrYAML prints value in the format, or as YAML if there is none.
func (o *outputFlag) printOrYAML(cmd *cobra.Command, value any) error {
	if o.format == "json" {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(value)
	}
	data, err := yaml.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	_, err = cmd.OutOrStdout().Write(data)
	return err
}

// printRows prints rows in aligned columns, which are separated by tabs.
func printRows(cmd *cobra.Command, rows []string) error {
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	return w.Flush()
}
