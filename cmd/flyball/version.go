package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"flyball.dev/host/bundle"
)

// versions is what `flyball version` prints.
type versions struct {
	Flyball string        `json:"flyball"`
	Parts   []bundle.Part `json:"parts"`
}

func newVersionCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "version", Short: "Show the versions of Flyball and of every bundled part", Args: cobra.NoArgs}
	output := addOutputFlag(cmd, "json", "yaml")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b, err := bundle.Find()
		if err != nil {
			return err
		}
		v := versions{Flyball: bundle.Version(), Parts: b.Parts()}
		out := cmd.OutOrStdout()
		switch *output {
		case "json":
			return json.NewEncoder(out).Encode(v)
		case "yaml":
			data, err := yaml.Marshal(v)
			if err != nil {
				return fmt.Errorf("encoding: %w", err)
			}
			_, err = out.Write(data)
			return err
		}
		w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		fmt.Fprintf(w, "flyball\t%s\n", v.Flyball)
		for _, p := range v.Parts {
			fmt.Fprintf(w, "%s\t%s\n", p.Name, p.Version)
		}
		return w.Flush()
	}
	return cmd
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
