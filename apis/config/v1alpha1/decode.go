package v1alpha1

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
	kjson "sigs.k8s.io/json"
	sigsyaml "sigs.k8s.io/yaml"
)

// Decode reads a configuration file strictly: an unknown or repeated field is an error that names
// it and its line.
func Decode(data []byte) (*FlyballConfiguration, error) {
	c := &FlyballConfiguration{}
	raw, err := sigsyaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, fmt.Errorf("parsing YAML: %w", err)
	}
	strict, err := kjson.UnmarshalStrict(raw, c)
	if err != nil {
		return nil, fmt.Errorf("decoding: %w", err)
	}
	if c.APIVersion != GroupVersion || c.Kind != Kind {
		return nil, fmt.Errorf("decoding: the file must begin with \"apiVersion: %s\" and \"kind: %s\", it says %q and %q",
			GroupVersion, Kind, c.APIVersion, c.Kind)
	}
	if len(strict) > 0 {
		return nil, fmt.Errorf("decoding: %w", errors.Join(withLines(strict, data)...))
	}
	return c, nil
}

// ReadFile decodes the configuration file at path. Without a path the configuration is empty.
func ReadFile(path string) (c FlyballConfiguration, err error) {
	if path == "" {
		return c, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("reading the configuration file: %w", err)
	}
	decoded, err := Decode(data)
	if err != nil {
		return c, fmt.Errorf("reading the configuration file %s: %w", path, err)
	}
	return *decoded, nil
}

// withLines adds to each strict decoding error the line of the field that it names.
func withLines(errs []error, data []byte) []error {
	var doc yaml.Node
	if yaml.Unmarshal(data, &doc) != nil || len(doc.Content) == 0 {
		return errs
	}
	out := make([]error, 0, len(errs))
	for _, err := range errs {
		// The decoder has no typed error for this; the path stands in quotes.
		_, rest, _ := strings.Cut(err.Error(), `"`)
		path, _, _ := strings.Cut(rest, `"`)
		if line := lineOf(doc.Content[0], strings.Split(path, ".")); line > 0 {
			err = fmt.Errorf("line %d: %w", line, err)
		}
		out = append(out, err)
	}
	return out
}

// lineOf finds the line of the key at path; 0 if there is none.
func lineOf(node *yaml.Node, path []string) int {
	if node.Kind != yaml.MappingNode {
		return 0
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		if node.Content[i].Value != path[0] {
			continue
		}
		if len(path) == 1 {
			return node.Content[i].Line
		}
		return lineOf(node.Content[i+1], path[1:])
	}
	return 0
}
