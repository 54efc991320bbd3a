package config_test

import (
	"io/fs"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	"flyball.dev/config"
)

// TestCRDsExplainEverything: `kubectl explain` has a word for each field, and the CRD stays below what etcd stores and
// Helm packs.
func TestCRDsExplainEverything(t *testing.T) {
	const most = 1 << 20
	files, err := fs.Glob(config.CRDs, "crd/bases/*.yaml")
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		data, err := fs.ReadFile(config.CRDs, file)
		if err != nil {
			t.Fatal(err)
		}
		if len(data) >= most {
			t.Errorf("%s has %d bytes, %d are the limit", file, len(data), most)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			t.Fatal(err)
		}
		root := crd.Spec.Versions[0].Schema.OpenAPIV3Schema
		delete(root.Properties, "metadata") // the API server knows what that is
		explained(t, crd.Spec.Names.Singular, *root)
	}
}

func explained(t *testing.T, path string, schema apiextensionsv1.JSONSchemaProps) {
	t.Helper()
	for name, property := range schema.Properties {
		if property.Description == "" {
			t.Errorf("%s.%s has no description", path, name)
		}
		explained(t, path+"."+name, property)
	}
	if schema.Items != nil {
		explained(t, path+"[]", *schema.Items.Schema)
	}
}
