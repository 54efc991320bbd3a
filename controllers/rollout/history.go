package rollout

import (
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Revision is a template that a Deployment has had.
type Revision struct {
	Number      int64                  `json:"revision"`
	ReplicaSet  string                 `json:"replicaSet"`
	ChangeCause string                 `json:"changeCause,omitempty"`
	Note        string                 `json:"note,omitempty"` // last available, or rolled back
	Template    corev1.PodTemplateSpec `json:"template"`
}

// History are the revisions that the Deployment keeps, the current one last.
func (r *Rollout) History(ctx context.Context) ([]Revision, error) {
	d, options, err := r.get(ctx)
	if err != nil {
		return nil, err
	}
	sets, err := r.found.ReplicaSets.List(ctx, r.client, client.InNamespace(d.Namespace))
	if err != nil {
		return nil, err
	}
	var history []Revision
	for _, set := range sets {
		number, err := util.Revision(set)
		if err != nil || number == 0 || !metav1.IsControlledBy(set, d) {
			continue
		}
		revision := Revision{
			Number: number, ReplicaSet: set.Name, ChangeCause: set.Annotations[changeCause], Template: set.Spec.Template,
		}
		if set.Name == options.Status.AvailableReplicaSet {
			revision.Note = "last available"
		}
		if back := options.Status.Rollback; back != nil && back.From.ReplicaSet == set.Name {
			revision.Note = "rolled back: " + back.Reason
		}
		history = append(history, revision)
	}
	slices.SortFunc(history, func(a, b Revision) int { return int(a.Number - b.Number) })
	return history, nil
}

// Show returns one revision.
func (r *Rollout) Show(ctx context.Context, revision int64) (Revision, error) {
	history, err := r.History(ctx)
	if err != nil {
		return Revision{}, err
	}
	return pick(r, history, revision)
}
