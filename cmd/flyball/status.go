//go:build linux

package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"flyball.dev/host/checks"
	"flyball.dev/host/instance"
	"flyball.dev/host/status"
)

func newStatusCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show each part: whether it is up, since when, its last error",
		Long:  "Show each part: whether it is up, since when, its last error. The exit code is 1 if anything is down.",
		Args:  cobra.NoArgs,
	}
	output := addOutputFlag(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		all, err := status.All(cmd.Context(), instance.Sockets(instance.RunDir))
		if err != nil {
			return err
		}
		rows, down := []string{status.Heading}, false
		for _, s := range all {
			down = down || status.NotUp(s.Components) != nil
			for _, c := range s.Components {
				rows = append(rows, c.Row(time.Now()))
			}
		}
		if *output != "" {
			err = printAs(cmd.OutOrStdout(), *output, all)
		} else {
			err = printTable(cmd.OutOrStdout(), rows...)
		}
		if err == nil && down {
			err = errSilent
		}
		return err
	}
	return cmd
}

func newCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Show what this host lacks to run Flyball",
		Long: "Show what this host lacks to run Flyball, one line each with the remedy. The exit code is 1 if something is\n" +
			"missing that is required.",
		Args: cobra.NoArgs,
	}
	flags := addConfigFlags(cmd)
	output := addOutputFlag(cmd, "json")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := flags.load()
		if err != nil {
			return err
		}
		role := instance.Up
		if c.Joined != nil {
			role = instance.Agent
		}
		findings := c.CheckHost(role)
		if *output != "" {
			err = printAs(cmd.OutOrStdout(), *output, findings)
		} else {
			for _, f := range findings {
				fmt.Fprintln(cmd.OutOrStdout(), f.Line())
			}
		}
		if err == nil && checks.Missing(findings) != nil {
			err = errSilent
		}
		return err
	}
	return cmd
}
