//go:build linux

package main

import (
	"time"

	"github.com/samber/lo"
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
		components := lo.FlatMap(all, func(s status.Status, _ int) []status.Component { return s.Components })
		if err = output.print(cmd, all, status.Rows(components, time.Now())); err == nil && status.NotUp(components) != nil {
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
		c, err := wire(flags.Load())
		if err != nil {
			return err
		}
		findings := c.CheckHost()
		rows := lo.Map(findings, func(f checks.Finding, _ int) string { return f.Line() })
		if err = output.print(cmd, findings, rows); err == nil && checks.Missing(findings) != nil {
			err = errSilent
		}
		return err
	}
	return cmd
}
