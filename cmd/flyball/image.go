//go:build linux

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"flyball.dev/containerd"
)

func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Import, list and pull container images on this machine"}
	cmd.AddCommand(
		&cobra.Command{
			Use: "import FILE...", Short: "Import image archives, as `docker save` writes them or in the OCI layout",
			Args: cobra.MinimumNArgs(1), RunE: withContainerd(importImages),
		},
		&cobra.Command{Use: "list", Short: "List the container images on this machine", Args: cobra.NoArgs, RunE: withContainerd(listImages)},
		&cobra.Command{Use: "pull REF", Short: "Pull an image from its registry", Args: cobra.ExactArgs(1), RunE: withContainerd(pullImage)},
	)
	return asGroup(cmd)
}

// withContainerd runs a command with the socket of the bundled containerd.
func withContainerd(run func(cmd *cobra.Command, socket string, args []string) error) runE {
	return func(cmd *cobra.Command, args []string) error {
		// The warnings are about files that cannot be used. They are dropped, because the bundled
		// containerd's socket is at the same path whatever those files say.
		c, err := (&configFlags{}).loadInUse(func(error) {})
		if err != nil {
			return err
		}
		if c.CRIEndpoint != "" {
			return fmt.Errorf("reaching the bundled containerd: flyball uses another container runtime (%s); use that runtime's tools, such as crictl", c.CRIEndpoint)
		}
		return run(cmd, c.Containerd().Socket, args)
	}
}

func importImages(cmd *cobra.Command, socket string, files []string) error {
	for _, file := range files {
		names, err := containerd.ImportImages(cmd.Context(), socket, file)
		if err != nil {
			return err
		}
		for _, name := range names {
			fmt.Fprintln(cmd.OutOrStdout(), name)
		}
	}
	return nil
}

func listImages(cmd *cobra.Command, socket string, _ []string) error {
	images, err := containerd.ListImages(cmd.Context(), socket)
	if err != nil {
		return err
	}
	rows := []string{"IMAGE\tID\tSIZE"}
	for _, image := range images {
		rows = append(rows, image.Rows()...) // one for each name
	}
	return printRows(cmd, rows)
}

func pullImage(cmd *cobra.Command, socket string, args []string) error {
	ref, err := containerd.PullImage(cmd.Context(), socket, args[0])
	if err == nil {
		fmt.Fprintln(cmd.OutOrStdout(), ref)
	}
	return err
}
