package controlplane

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

// defaultClass is the end of the annotations that make a class the default of its kind.
const defaultClass = "/is-default-class"

// createDefaults creates the objects that no earlier start has created. The ConfigMap
// kube-system/flyball-defaults records which have been, so that what a user has deleted does not
// come back.
func createDefaults(ctx context.Context, client dynamic.Interface, objects []*unstructured.Unstructured) error {
	record := &unstructured.Unstructured{Object: map[string]any{"data": map[string]any{}}}
	record.SetAPIVersion("v1")
	record.SetKind("ConfigMap")
	record.SetName("flyball-defaults")
	record.SetNamespace(metav1.NamespaceSystem)
	records := resourceOf(client, record)
	earlier, err := records.Get(ctx, record.GetName(), metav1.GetOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading which defaults have been created: %w", err)
	}
	created := map[string]string{}
	if err == nil {
		created, _, _ = unstructured.NestedStringMap(earlier.Object, "data")
	}
	missing := slices.DeleteFunc(slices.Clone(objects), func(o *unstructured.Unstructured) bool {
		_, found := created[defaultKey(o)]
		return found
	})
	if len(missing) == 0 {
		return nil
	}
	for key, value := range created { // of defaults that are switched off now
		_ = unstructured.SetNestedField(record.Object, value, "data", key)
	}
	for _, o := range missing {
		if err := createDefault(ctx, resourceOf(client, o), o); err != nil {
			return err
		}
		_ = unstructured.SetNestedField(record.Object, "created", "data", defaultKey(o))
	}
	if _, err := records.Apply(ctx, record.GetName(), record, metav1.ApplyOptions{FieldManager: fieldManager, Force: true}); err != nil {
		return fmt.Errorf("recording which defaults have been created: %w", err)
	}
	return nil
}

func defaultKey(o *unstructured.Unstructured) string { return o.GetKind() + "." + o.GetName() }

// createDefault creates an object, unless one has its name. A class does not become the default of a
// cluster that has one already.
func createDefault(ctx context.Context, resource dynamic.ResourceInterface, o *unstructured.Unstructured) error {
	others, err := resource.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("listing what is there besides %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	o = o.DeepCopy()
	annotations := o.GetAnnotations()
	for name := range annotations {
		if strings.HasSuffix(name, defaultClass) && slices.ContainsFunc(others.Items, func(other unstructured.Unstructured) bool {
			return other.GetAnnotations()[name] == "true"
		}) {
			delete(annotations, name)
		}
	}
	o.SetAnnotations(annotations)
	_, err = resource.Create(ctx, o, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating %s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return nil
}

// belongsToOthers reports whether o is a CustomResourceDefinition of one of Kubernetes' own groups
// that somebody else has installed: theirs stays, whatever its version.
func belongsToOthers(ctx context.Context, resource dynamic.ResourceInterface, o *unstructured.Unstructured) (bool, error) {
	group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
	if o.GetKind() != "CustomResourceDefinition" || !strings.HasSuffix(group, ".k8s.io") {
		return false, nil
	}
	found, err := resource.Get(ctx, o.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("reading CustomResourceDefinition %s: %w", o.GetName(), err)
	}
	return !slices.ContainsFunc(found.GetManagedFields(), func(f metav1.ManagedFieldsEntry) bool { return f.Manager == fieldManager }), nil
}
