package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// printTable prints rows in aligned columns. Columns are separated by tabs.
func printTable(out io.Writer, rows ...string) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, row)
	}
	return w.Flush()
}

// printAs prints a value as JSON or as YAML.
func printAs(out io.Writer, format string, value any) error {
	if format == "json" {
		return json.NewEncoder(out).Encode(value)
	}
	data, err := yaml.Marshal(value)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	_, err = out.Write(data)
	return err
}

// addOutputFlag adds -o. Its value is empty or one of the formats.
func addOutputFlag(cmd *cobra.Command, formats ...string) *string {
	value := &oneOf{allowed: formats}
	cmd.Flags().VarP(value, "output", "o", "print as "+strings.Join(formats, " or "))
	return &value.value
}

// oneOf is a flag with a few possible values.
type oneOf struct {
	value   string
	allowed []string
}

func (o *oneOf) String() string { return o.value }
func (o *oneOf) Type() string   { return "format" }

func (o *oneOf) Set(value string) error {
	if !slices.Contains(o.allowed, value) {
		return fmt.Errorf("must be %s", strings.Join(o.allowed, " or "))
	}
	o.value = value
	return nil
}
