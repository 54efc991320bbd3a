package rollout

import (
	"context"
	"errors"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/kubectl/pkg/polymorphichelpers"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
)

// ErrFailed is the error of a rollout that failed or was rolled back.
var ErrFailed = errors.New("the rollout failed")

// Status reports how far the rollout is, whenever that changes, until it is over or ctx is
// cancelled. A rollout that waits at its partition is over. The error is ErrFailed if the rollout
// failed or was rolled back.
func (r *Rollout) Status(ctx context.Context, watch bool, report func(string)) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	for last := ""; ; {
		// The watch begins before the first read, so that no change is missed between them.
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(r.found.Kind)
		events, err := r.client.Watch(ctx, list, &client.ListOptions{
			Namespace:     r.found.Object.GetNamespace(),
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, r.found.Object.GetName()),
		})
		if err != nil {
			return fmt.Errorf("watching %s: %w", r, err)
		}
		for open := true; open; {
			d, options, err := r.get(ctx)
			if err != nil {
				return err
			}
			message, done, err := describe(d, options)
			if err == nil && message != last {
				report(message)
				last = message
			}
			if done || err != nil || !watch {
				return err
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting for the rollout of %s: %w; it goes on: %s", r, context.Cause(ctx), last)
			case _, open = <-events.ResultChan():
			}
		}
	}
}

// describe returns how far a rollout is, in kubectl's words, and whether it is over.
func describe(d *appsv1.Deployment, options v1alpha1.Options) (message string, done bool, err error) {
	observed := d.Generation <= d.Status.ObservedGeneration
	if back := options.Status.Rollback; back != nil && observed {
		return "", false, fmt.Errorf("%w: %s", ErrFailed, back.Message)
	}
	progressing := util.GetDeploymentCondition(d.Status, appsv1.DeploymentProgressing)
	if observed && progressing != nil && progressing.Reason == v1alpha1.PartitionReachedReason {
		return fmt.Sprintf("deployment %q waits at its partition: %s", d.Name, progressing.Message), true, nil
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(d)
	if err != nil {
		return "", false, fmt.Errorf("reading the status: %w", err)
	}
	message, done, err = (&polymorphichelpers.DeploymentStatusViewer{}).Status(&unstructured.Unstructured{Object: content}, 0)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return strings.TrimSpace(message), done, err
}
