// Command crdschema finishes the CRDs that controller-gen wrote: it puts in the defaults and bounds of apps/v1.
//
// They cannot be markers, because the fields belong to upstream's types, which our kinds embed and which carry none
// (apps/v1 has its defaults in Go code of the kube-apiserver). The Pod template gets no defaults here: its fields are
// defaulted when a Pod is created, and a template that stays as the user wrote it is equal to its copy in a ReplicaSet.
//
// Usage: crdschema FILE...
package main

import (
	"fmt"
	"maps"
	"os"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

// settings are keyed by the path of a schema below properties; those that a kind lacks do not concern it. No value takes
// the key away. The bounds on
// sizes let the API server see that the CEL rules on the selector are cheap; they are what labels keep to anyway, or far
// above use.
var settings = []struct {
	path  []string
	key   string
	value any
}{
	{spec("replicas"), "default", int64(1)},
	{spec("replicas"), "minimum", int64(0)},
	{spec("minReadySeconds"), "minimum", int64(0)},
	{spec("revisionHistoryLimit"), "default", int64(10)},
	{spec("revisionHistoryLimit"), "minimum", int64(0)},
	{spec("progressDeadlineSeconds"), "default", int64(600)},
	{spec("progressDeadlineSeconds"), "minimum", int64(1)},
	{spec("strategy"), "default", map[string]any{
		"type":          "RollingUpdate",
		"rollingUpdate": map[string]any{"maxSurge": "25%", "maxUnavailable": "25%"},
	}},
	{spec("strategy", "properties", "type"), "default", "RollingUpdate"},
	{spec("strategy", "properties", "type"), "enum", []any{"Recreate", "RollingUpdate"}},
	{rolling("maxSurge"), "default", "25%"},
	{rolling("maxUnavailable"), "default", "25%"},
	{spec("selector", "properties", "matchLabels"), "maxProperties", int64(64)},
	{spec("selector", "properties", "matchLabels", "additionalProperties"), "maxLength", int64(63)},
	{spec("selector", "properties", "matchExpressions"), "maxItems", int64(64)},
	{spec("selector", "properties", "matchExpressions", "items", "properties", "key"), "maxLength", int64(317)},
	{spec("selector", "properties", "matchExpressions", "items", "properties", "operator"), "enum", []any{"In", "NotIn", "Exists", "DoesNotExist"}},
	{spec("selector", "properties", "matchExpressions", "items", "properties", "values"), "maxItems", int64(128)},
	{spec("selector", "properties", "matchExpressions", "items", "properties", "values", "items"), "maxLength", int64(63)},
	// The fields that ours put beside upstream's under the same name; controller-gen says twice what they are.
	{rolling("maxSurge"), "allOf", nil},
	{rolling("maxUnavailable"), "allOf", nil},
	{rolling("maxSurge"), "maxLength", int64(16)},
	{rolling("maxUnavailable"), "maxLength", int64(16)},
	{rolling("partition"), "maxLength", int64(16)},
	{spec("rollback", "properties", "onCrashLoop", "properties", "pods"), "maxLength", int64(16)},
	{spec("template", "properties", "metadata", "properties", "labels", "additionalProperties"), "maxLength", int64(63)},
	// Who waits for an object sees from the start that no loop has seen it yet.
	{[]string{"status"}, "default", map[string]any{"observedGeneration": int64(-1), "replicas": int64(0)}},
	// A merge patch of the status says nothing of a number that was 0 and stays 0, also when it is not stored yet.
	{[]string{"status", "properties", "replicas"}, "default", int64(0)},
	// The key of a list of type map has to be required; upstream's type says optional.
	{[]string{"status", "properties", "conditions", "items"}, "required", []any{"status", "type"}},
}

// metadata are the fields of an embedded object's metadata, which upstream's generator leaves without a word.
var metadata = map[string]string{
	"annotations": "Annotations that the object gets.",
	"finalizers":  "Finalizers that the object gets: it is removed only when all of them are gone.",
	"labels":      "Labels that the object gets.",
	"name":        "Name is ignored: the object gets one of its own.",
	"namespace":   "Namespace is ignored: the object lies in its owner's.",
}

// ignored are the other fields of an object's metadata. The API server sets them, and they mean nothing in a template; but
// apps/v1 accepts them there, and manifests that were once read from a cluster have them.
var ignored = map[string]any{
	"creationTimestamp": moment(), "deletionTimestamp": moment(),
	"deletionGracePeriodSeconds": number(), "generation": number(),
	"generateName": text(), "resourceVersion": text(), "selfLink": text(), "uid": text(),
	"ownerReferences": list(map[string]any{
		"apiVersion": text(), "kind": text(), "name": text(), "uid": text(), "controller": truth(), "blockOwnerDeletion": truth(),
	}),
	"managedFields": list(map[string]any{
		"apiVersion": text(), "fieldsType": text(), "manager": text(), "operation": text(), "subresource": text(), "time": moment(),
		"fieldsV1": field("object", "x-kubernetes-preserve-unknown-fields", true),
	}),
}

func field(kind string, more ...any) map[string]any {
	schema := map[string]any{"type": kind, "description": "Ignored: an object's own has what the API server sets.", "nullable": true}
	for i := 0; i+1 < len(more); i += 2 {
		schema[more[i].(string)] = more[i+1]
	}
	return schema
}

func text() map[string]any   { return field("string") }
func truth() map[string]any  { return field("boolean") }
func number() map[string]any { return field("integer", "format", "int64") }
func moment() map[string]any { return field("string", "format", "date-time") }

func list(properties map[string]any) map[string]any {
	return field("array", "x-kubernetes-list-type", "atomic", "items", map[string]any{"type": "object", "properties": properties})
}

// embedded are the places with such metadata.
var embedded = [][]string{
	spec("template", "properties", "metadata", "properties"),
	spec("template", "properties", "spec", "properties", "volumes", "items", "properties", "ephemeral", "properties",
		"volumeClaimTemplate", "properties", "metadata", "properties"),
}

func spec(path ...string) []string {
	return append([]string{"spec", "properties"}, path...)
}

func rolling(field string) []string {
	return spec("strategy", "properties", "rollingUpdate", "properties", field)
}

func main() {
	for _, file := range os.Args[1:] {
		if err := finish(file); err != nil {
			fmt.Fprintln(os.Stderr, "crdschema:", err)
			os.Exit(1)
		}
	}
}

func finish(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("reading a CRD: %w", err)
	}
	var crd map[string]any
	if err := yaml.Unmarshal(data, &crd); err != nil {
		return fmt.Errorf("parsing %s: %w", file, err)
	}
	versions, _, err := unstructured.NestedSlice(crd, "spec", "versions")
	if err != nil {
		return fmt.Errorf("finding the versions in %s: %w", file, err)
	}
	for _, version := range versions {
		set(version.(map[string]any))
	}
	if err := unstructured.SetNestedSlice(crd, versions, "spec", "versions"); err != nil {
		return fmt.Errorf("putting the versions back into %s: %w", file, err)
	}
	data, err = yaml.Marshal(crd)
	if err != nil {
		return fmt.Errorf("rendering %s: %w", file, err)
	}
	if err := os.WriteFile(file, append([]byte("---\n"), data...), 0o644); err != nil {
		return fmt.Errorf("writing a CRD: %w", err)
	}
	return nil
}

func set(version map[string]any) {
	for _, s := range settings {
		if property := find(version, s.path); property != nil {
			property[s.key] = s.value
			if s.value == nil {
				delete(property, s.key)
			}
		}
	}
	for _, path := range embedded {
		if properties := find(version, path); properties != nil {
			maps.Copy(properties, runtime.DeepCopyJSON(ignored))
		}
		for name, description := range metadata {
			if property := find(version, append(slices.Clip(path), name)); property != nil {
				property["description"] = description
			}
		}
	}
}

// find returns the schema at a path, nil if there is none.
func find(version map[string]any, path []string) map[string]any {
	schema, _, _ := unstructured.NestedFieldNoCopy(version, append([]string{"schema", "openAPIV3Schema", "properties"}, path...)...)
	property, _ := schema.(map[string]any)
	return property
}
