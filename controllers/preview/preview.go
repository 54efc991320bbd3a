// Package preview returns what a loop would do next with an object, and why, without doing it.
//
// The loop's own code observes, from the API server instead of a cache, and plans. The API server
// first applies a manifest as a dry run, which defaults and validates it and merges it with the
// stored object. Apart from that dry run the package only reads.
package preview

import (
	"context"
	"fmt"
	"time"

	"github.com/samber/lo"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/deployment"
	"flyball.dev/controllers/find"
	"flyball.dev/controllers/internal/action"
	"flyball.dev/controllers/internal/controllerref"
	"flyball.dev/controllers/replicaset"
)

// fieldOwner is the field manager of manifests that are applied as a dry run.
const fieldOwner = client.FieldOwner("flyball-plan")

// Preview is what a loop would do next.
type Preview struct {
	// Object is the name that kubectl prints for the object, deployment.apps/web for example.
	Object    string `json:"object"`
	Namespace string `json:"namespace"`
	Steps     []Step `json:"steps"`
	// Conditions are the conditions that the loop would report afterwards, one per line.
	Conditions []string `json:"conditions,omitempty"`
	// Next is the time after which the loop would reconcile without an event; 0 means never.
	Next time.Duration `json:"next,omitempty"`
}

// Step is one action, with its reason.
type Step struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Of previews the object that KIND/NAME names.
func Of(ctx context.Context, c client.Client, namespace, reference string) (Preview, error) {
	found, err := find.Named(ctx, c, namespace, reference)
	if err != nil {
		return Preview{}, err
	}
	return explain(ctx, c, found)
}

// OfManifest previews an object as it would be after server-side apply of a manifest.
func OfManifest(ctx context.Context, c client.Client, manifest *unstructured.Unstructured) (Preview, error) {
	found, err := find.Empty(manifest.GroupVersionKind())
	if err != nil {
		return Preview{}, err
	}
	applied := manifest.DeepCopy()
	configuration := client.ApplyConfigurationFromUnstructured(applied)
	if err := c.Apply(ctx, configuration, fieldOwner, client.ForceOwnership, client.DryRunAll); err != nil {
		return Preview{}, fmt.Errorf("applying %s %s as a dry run: %w", manifest.GetKind(), manifest.GetName(), err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(applied.Object, found.Object); err != nil {
		return Preview{}, fmt.Errorf("reading what %s %s would become: %w", manifest.GetKind(), manifest.GetName(), err)
	}
	return explain(ctx, c, found)
}

func explain(ctx context.Context, c client.Client, found find.Found) (Preview, error) {
	preview := Preview{Object: found.String(), Namespace: found.Object.GetNamespace()}
	if found.Kind.Kind == "ReplicaSet" {
		set, options := found.ReplicaSets.Read(found.Object)
		state, err := replicaset.Observe(ctx, live{c}, found.ReplicaSets, set, options)
		if err != nil {
			return preview, err
		}
		plan := replicaset.NewPlan(state)
		preview.Steps, preview.Next = steps(plan.Actions), replicaset.NextReconcile(state, plan)
		return preview, nil
	}
	d, options := found.Deployments.Read(found.Object)
	state, err := deployment.Observe(ctx, live{c}, found.ReplicaSets, d, options)
	if err != nil {
		return preview, err
	}
	plan := deployment.NewPlan(state)
	preview.Steps, preview.Next = steps(plan.Actions), plan.Next
	for _, c := range plan.Status.Conditions {
		if c.Type != v1alpha1.Reconciling && c.Type != v1alpha1.Stalled { // these repeat the other conditions for programs
			words := fmt.Sprintf("%s is %s, %s: %s", c.Type, c.Status, c.Reason, c.Message)
			preview.Conditions = append(preview.Conditions, words)
		}
	}
	return preview, nil
}

func steps(actions []action.Action) (steps []Step) {
	for _, a := range actions {
		steps = append(steps, Step{a.String(), a.Why()})
	}
	return steps
}

// live lets the loops list by their cache index without a cache: it lists all objects from the API
// server and filters them.
type live struct{ client.Reader }

func (l live) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := client.ListOptions{}
	options.ApplyOptions(opts)
	if options.FieldSelector == nil {
		return l.Reader.List(ctx, list, opts...)
	}
	uid, _ := options.FieldSelector.RequiresExactMatch(controllerref.Index)
	options.FieldSelector = nil
	if err := l.Reader.List(ctx, list, &options); err != nil {
		return err
	}
	all, err := meta.ExtractList(list)
	if err != nil {
		return fmt.Errorf("reading a list: %w", err)
	}
	return meta.SetList(list, lo.Filter(all, func(item runtime.Object, _ int) bool {
		object, ok := item.(client.Object)
		return ok && controllerref.Keys(object)[0] == uid
	}))
}
