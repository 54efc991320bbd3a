package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

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
		if file == "" {
			p, err := preview.Of(cmd.Context(), c, namespace, args[0])
			if err != nil {
				return err
			}
			previews = append(previews, p)
		} else {
			manifests, err := readManifests(cmd.InOrStdin(), file, namespace)
			if err != nil {
				return err
			}
			for _, manifest := range manifests {
				p, err := preview.OfManifest(cmd.Context(), c, manifest)
				if err != nil {
					return err
				}
				previews = append(previews, p)
			}
		}
		if *output != "" {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(previews)
		}
		return printPreviews(cmd.OutOrStdout(), previews)
	}
	return cmd
}

// readManifests returns the Deployments and ReplicaSets of a file. Other kinds have no loop of ours.
func readManifests(stdin io.Reader, file, namespace string) ([]*unstructured.Unstructured, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the manifest: %w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	const buffer = 4096
	var manifests []*unstructured.Unstructured
	decoder := yaml.NewYAMLOrJSONDecoder(in, buffer)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(&object.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("reading the manifest %s: %w", file, err)
		}
		if kind := object.GetKind(); kind != "Deployment" && kind != "ReplicaSet" {
			continue
		}
		if object.GetNamespace() == "" {
			object.SetNamespace(namespace)
		}
		manifests = append(manifests, object)
	}
	if len(manifests) == 0 {
		return nil, fmt.Errorf("reading the manifest %s: there is no Deployment or ReplicaSet in it", file)
	}
	return manifests, nil
}

func printPreviews(out io.Writer, previews []preview.Preview) error {
	for _, p := range previews {
		fmt.Fprintf(out, "%s in namespace %s\n", p.Object, p.Namespace)
		w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		for i, step := range p.Steps {
			fmt.Fprintf(w, "  %d. %s\tbecause %s\n", i+1, step.What, step.Why)
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if len(p.Steps) == 0 {
			fmt.Fprintln(out, "  nothing to do")
		}
		for _, condition := range p.Conditions {
			fmt.Fprintf(out, "  %s\n", condition)
		}
		if p.Next > 0 {
			fmt.Fprintf(out, "  It looks again after %v, or when something happens.\n", p.Next.Round(time.Second))
		}
	}
	return nil
}
