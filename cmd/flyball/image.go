//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/resource"

	"flyball.dev/cmd/flyball/internal/parts"
	"flyball.dev/containerd"
	"flyball.dev/host/instance"
)

func newImageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Import, list and pull the images of this machine"}
	socket := func() (string, error) {
		set, err := (&configFlags{}).loadInUse(instance.RunDir, func(error) {}) // an image has nothing to do with it
		if err != nil {
			return "", err
		}
		if set.Config.CRIEndpoint != "" {
			return "", fmt.Errorf("reaching the bundled containerd: flyball uses another container runtime (%s); use its own tools", set.Config.CRIEndpoint)
		}
		return set.Containerd().Socket, nil
	}
	cmd.AddCommand(newImageImportCommand(socket), newImageListCommand(socket), newImagePullCommand(socket))
	return asGroup(cmd)
}

func newImageImportCommand(socket func() (string, error)) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE...", Short: "Import image archives, as `docker save` writes them or in the OCI layout", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			s, err := socket()
			if err != nil {
				return err
			}
			for _, file := range files {
				names, err := parts.Import(cmd.Context(), s, file)
				if err != nil {
					return err
				}
				for _, name := range names {
					fmt.Fprintln(cmd.OutOrStdout(), name)
				}
			}
			return nil
		},
	}
}

func newImageListCommand(socket func() (string, error)) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the images of this machine", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := socket()
			if err != nil {
				return err
			}
			images, err := containerd.List(cmd.Context(), s)
			if err != nil {
				return err
			}
			return printImages(cmd.OutOrStdout(), images)
		},
	}
}

func newImagePullCommand(socket func() (string, error)) *cobra.Command {
	return &cobra.Command{
		Use: "pull REF", Short: "Pull an image from its registry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := socket()
			if err != nil {
				return err
			}
			ref, err := containerd.Pull(cmd.Context(), s, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), ref)
			return err
		},
	}
}

func printImages(out io.Writer, images []containerd.Image) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "IMAGE\tID\tSIZE")
	for _, i := range images {
		names := i.Tags
		if len(names) == 0 {
			names = i.Digests
		}
		for _, name := range names {
			fmt.Fprintf(w, "%s\t%s\t%s\n", name, shortID(i.ID), resource.NewQuantity(int64(i.Size), resource.BinarySI))
		}
	}
	return w.Flush()
}

// shortID is enough of a digest to tell images apart.
func shortID(id string) string {
	const length = 12
	id = strings.TrimPrefix(id, "sha256:")
	return id[:min(length, len(id))]
}
