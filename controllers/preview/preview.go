// Package preview says what a loop would do next with an object, and why, without doing it.
//
// It lets the loop's own code observe, from the API server instead of a cache, and plan. A manifest that is not applied
// is first given to the API server as a dry run, which defaults and validates it and merges it with what is there. The
// package writes nothing; that dry run apart, it only reads.
package preview

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/controllers/deployment"
	"flyball.dev/controllers/find"
	"flyball.dev/controllers/internal/controllerref"
	"flyball.dev/controllers/replicaset"
)

// fieldOwner is who applies manifests, in dry runs only.
const fieldOwner = client.FieldOwner("flyball-plan")

// Preview is what a loop would do next.
type Preview struct {
	// Object is who it is about, deployment.apps/web say.
	Object    string `json:"object"`
	Namespace string `json:"namespace"`
	Steps     []Step `json:"steps"`
	// Conditions are what the loop would report afterwards, one per line.
	Conditions []string `json:"conditions,omitempty"`
	// Next is when it would look again though nothing happens; 0 means not before something does.
	Next time.Duration `json:"next,omitempty"`
}

// Step is one action, with its reason.
type Step struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// Of is about the object that KIND/NAME names.
func Of(ctx context.Context, c client.Client, namespace, reference string) (Preview, error) {
	found, err := find.Named(ctx, c, namespace, reference)
	if err != nil {
		return Preview{}, err
	}
	return explain(ctx, c, found)
}

// OfManifest is about an object as it would be once the manifest was applied, by server-side apply.
func OfManifest(ctx context.Context, c client.Client, manifest *unstructured.Unstructured) (Preview, error) {
	found, err := find.Empty(manifest.GroupVersionKind())
	if err != nil {
		return Preview{}, err
	}
	applied := manifest.DeepCopy()
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(applied), fieldOwner, client.ForceOwnership, client.DryRunAll); err != nil {
		return Preview{}, fmt.Errorf("asking the API server what %s %s would become: %w", manifest.GetKind(), manifest.GetName(), err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(applied.Object, found.Object); err != nil {
		return Preview{}, fmt.Errorf("reading what %s %s would become: %w", manifest.GetKind(), manifest.GetName(), err)
	}
	return explain(ctx, c, found)
}

func explain(ctx context.Context, c client.Client, found find.Found) (Preview, error) {
	preview := Preview{Object: found.String(), Namespace: found.Object.GetNamespace()}
	reader := live{c}
	if found.Kind.Kind == "ReplicaSet" {
		set, options := found.ReplicaSets.Read(found.Object)
		state, err := replicaset.Observe(ctx, found.ReplicaSets, reader, set, options)
		if err != nil {
			return preview, err
		}
		plan := replicaset.NewPlan(state)
		for _, step := range plan.Actions {
			preview.Steps = append(preview.Steps, Step{step.String(), step.Why()})
		}
		preview.Next = replicaset.NextReconcile(state, plan)
		return preview, nil
	}
	d, options := found.Deployments.Read(found.Object)
	state, err := deployment.Observe(ctx, found.ReplicaSets, reader, d, options)
	if err != nil {
		return preview, err
	}
	plan := deployment.NewPlan(state)
	for _, step := range plan.Actions {
		preview.Steps = append(preview.Steps, Step{step.String(), step.Why()})
	}
	for _, c := range plan.Status.Conditions {
		if c.Type == deployment.Reconciling || c.Type == deployment.Stalled {
			continue // they say to programs what the others say to people
		}
		preview.Conditions = append(preview.Conditions, fmt.Sprintf("%s is %s, %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	preview.Next = plan.Next
	return preview, nil
}

// live makes a reader of the API server understand controllerref.ControlledBy and controllerref.Orphans, which are cache indexes: it lists
// everything and sorts out. That is for a look now and then, not for a controllerref.
type live struct{ client.Reader }

func (l live) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	options := client.ListOptions{}
	options.ApplyOptions(opts)
	if options.FieldSelector == nil {
		return l.Reader.List(ctx, list, opts...)
	}
	uid, found := options.FieldSelector.RequiresExactMatch(controllerref.Index)
	if !found {
		return l.Reader.List(ctx, list, opts...)
	}
	options.FieldSelector = nil
	if err := l.Reader.List(ctx, list, &options); err != nil {
		return err
	}
	all, err := meta.ExtractList(list)
	if err != nil {
		return fmt.Errorf("reading a list: %w", err)
	}
	kept := all[:0]
	for _, item := range all {
		if object, ok := item.(client.Object); ok && controllerref.Keys(object)[0] == uid {
			kept = append(kept, item)
		}
	}
	return meta.SetList(list, kept)
}
