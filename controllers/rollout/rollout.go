// Package rollout is kubectl rollout for Deployments of both groups: status, history, undo, pause,
// resume, restart. kubectl itself knows those of apps/v1 only. The package writes what kubectl
// writes, the template and spec.paused; the rest is the loop's.
package rollout

import (
	"context"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/find"
)

const (
	// restartedAt is the annotation of the template that kubectl rollout restart sets.
	restartedAt = "kubectl.kubernetes.io/restartedAt"
	// changeCause says why a user made a revision.
	changeCause = "kubernetes.io/change-cause"
)

// Rollout is the rollout of a Deployment.
type Rollout struct {
	client client.WithWatch
	found  find.Found
}

// Find finds the Deployment that KIND/NAME names.
func Find(ctx context.Context, c client.WithWatch, namespace, reference string) (*Rollout, error) {
	found, err := find.Named(ctx, c, namespace, reference)
	if err != nil {
		return nil, err
	}
	if found.Kind.Kind != "Deployment" {
		return nil, fmt.Errorf("finding the rollout of %s: only Deployments have one", found)
	}
	return &Rollout{client: c, found: found}, nil
}

// String is how kubectl names the Deployment.
func (r *Rollout) String() string { return r.found.String() }

// Pause keeps the Deployment from rolling anything out.
func (r *Rollout) Pause(ctx context.Context) error {
	return r.edit(ctx, func(d *appsv1.Deployment) error {
		if d.Spec.Paused {
			return fmt.Errorf("pausing %s: it is paused already", r)
		}
		d.Spec.Paused = true
		return nil
	})
}

// Resume ends a pause.
func (r *Rollout) Resume(ctx context.Context) error {
	return r.edit(ctx, func(d *appsv1.Deployment) error {
		if !d.Spec.Paused {
			return fmt.Errorf("resuming %s: it is not paused", r)
		}
		d.Spec.Paused = false
		return nil
	})
}

// Restart replaces all Pods by ones of the same template, as a rollout.
func (r *Rollout) Restart(ctx context.Context, now time.Time) error {
	return r.edit(ctx, func(d *appsv1.Deployment) error {
		if d.Spec.Paused {
			return fmt.Errorf("restarting %s: it is paused; resume it first", r)
		}
		metav1.SetMetaDataAnnotation(&d.Spec.Template.ObjectMeta, restartedAt, now.Format(time.RFC3339))
		return nil
	})
}

// Undo makes the template of an earlier revision the current one, of the one before the current if
// revision is 0. It returns the revision that it took.
func (r *Rollout) Undo(ctx context.Context, revision int64) (int64, error) {
	history, err := r.History(ctx)
	if err != nil {
		return 0, err
	}
	to, err := pick(r, history, revision)
	if err != nil {
		return 0, err
	}
	return to.Number, r.edit(ctx, func(d *appsv1.Deployment) error {
		if d.Spec.Paused {
			return fmt.Errorf("rolling back %s: it is paused; resume it first", r)
		}
		util.SetFromReplicaSetTemplate(d, to.Template)
		delete(d.Annotations, changeCause)
		if to.ChangeCause != "" {
			metav1.SetMetaDataAnnotation(&d.ObjectMeta, changeCause, to.ChangeCause)
		}
		return nil
	})
}

// pick finds a revision in a history, 0 being the one before the newest.
func pick(r *Rollout, history []Revision, revision int64) (Revision, error) {
	if revision == 0 {
		if len(history) < 2 {
			return Revision{}, fmt.Errorf("rolling back %s: there is no earlier revision in its history", r)
		}
		return history[len(history)-2], nil
	}
	if i := slices.IndexFunc(history, func(h Revision) bool { return h.Number == revision }); i >= 0 {
		return history[i], nil
	}
	return Revision{}, fmt.Errorf("finding revision %d of %s: its history has no such revision; "+
		"`rollout history` shows those it has", revision, r)
}

// edit changes the Deployment, and starts again if another change came between.
func (r *Rollout) edit(ctx context.Context, change func(*appsv1.Deployment) error) error {
	return retry.OnError(retry.DefaultBackoff, apierrors.IsConflict, func() error {
		before, _, err := r.get(ctx)
		if err != nil {
			return err
		}
		after := before.DeepCopy()
		if err := change(after); err != nil {
			return err
		}
		_, err = r.found.Deployments.Patch(ctx, r.client, before, after)
		return err
	})
}

func (r *Rollout) get(ctx context.Context) (*appsv1.Deployment, v1alpha1.Options, error) {
	d, options, err := r.found.Deployments.Get(ctx, r.client, client.ObjectKeyFromObject(r.found.Object))
	if err != nil {
		err = fmt.Errorf("reading %s: %w", r, err)
	}
	return d, options, err
}
