package controllers

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// ParseKinds parses what --kinds was given: API groups and versions.
func ParseKinds(kinds []string) ([]schema.GroupVersion, error) {
	var versions []schema.GroupVersion
	for _, kind := range kinds {
		version, err := schema.ParseGroupVersion(strings.TrimSpace(kind))
		if err != nil {
			return nil, fmt.Errorf("reading --kinds: %w; write apps.flyball.dev/v1alpha1, for example", err)
		}
		versions = append(versions, version)
	}
	return versions, nil
}
