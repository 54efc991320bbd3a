package preview

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// OfFile is about the Deployments and ReplicaSets in a file of manifests, see OfManifest. Those
// without a namespace get the given one. The file - is stdin.
func OfFile(ctx context.Context, c client.Client, stdin io.Reader, file, namespace string) ([]Preview, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("reading the manifest: %w", err)
		}
		defer f.Close()
		in = f
	}
	manifests, err := readManifests(in, file, namespace)
	if err != nil {
		return nil, err
	}
	var previews []Preview
	for _, manifest := range manifests {
		p, err := OfManifest(ctx, c, manifest)
		if err != nil {
			return nil, err
		}
		previews = append(previews, p)
	}
	return previews, nil
}

// readManifests returns the Deployments and ReplicaSets in a stream of manifests; those without a
// namespace get the given one. Other kinds have no loop of ours. It is an error if there are none.
// file is the stream's name in errors.
func readManifests(in io.Reader, file, namespace string) ([]*unstructured.Unstructured, error) {
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
