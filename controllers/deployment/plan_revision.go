package deployment

import (
	"fmt"
	"math"
	"sort"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
	labelsutil "k8s.io/kubernetes/pkg/util/labels"
	"k8s.io/utils/ptr"

	"flyball.dev/apis/apps/v1alpha1"
	"flyball.dev/controllers/internal/action"
)

// ensureCurrent plans the ReplicaSet of the current template, unless there is one.
func (r *rollout) ensureCurrent(size int32) {
	if r.current != nil {
		return
	}
	d := r.Deployment
	template := *d.Spec.Template.DeepCopy()
	hash := controller.ComputeHash(&template, d.Status.CollisionCount)
	template.Labels = labelsutil.CloneAndAddLabel(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: setName(d.Name, hash), Namespace: d.Namespace, Labels: template.Labels},
		Spec: appsv1.ReplicaSetSpec{
			Replicas:        new(size),
			MinReadySeconds: d.Spec.MinReadySeconds,
			Selector:        labelsutil.CloneSelectorAndAddLabel(d.Spec.Selector, appsv1.DefaultDeploymentUniqueLabelKey, hash),
			Template:        template,
		},
	}
	r.current = set
	annotate(d, set, r.old, false)
	r.changef(set, "no ReplicaSet has the current template")
	r.noteProgressing(corev1.ConditionTrue, util.NewReplicaSetReason, fmt.Sprintf("Created new replica set %q", set.Name))
}

// keepHistory copies what changed in the Deployment beside the template to the current ReplicaSet.
func (r *rollout) keepHistory() {
	set := r.current
	if set == nil {
		return
	}
	if set.Spec.MinReadySeconds != r.Deployment.Spec.MinReadySeconds {
		set.Spec.MinReadySeconds = r.Deployment.Spec.MinReadySeconds
		r.changef(set, "minReadySeconds changed")
	}
	if r.kept.Rollback != nil {
		return // the ReplicaSet that was rolled back to keeps its own place in the history
	}
	was := set.Annotations[util.RevisionAnnotation]
	switch changed := annotate(r.Deployment, set, r.old, true); {
	case changed && set.Annotations[util.RevisionAnnotation] != was:
		r.changef(set, "its template is the current one again")
		if r.Options.Rollback != (v1alpha1.Rollback{}) {
			r.noteFound() // the failure of the template before it must not count against this one
		}
	case changed:
		r.changef(set, "the Deployment's annotations changed")
	}
	if util.GetDeploymentCondition(r.status, appsv1.DeploymentProgressing) == nil {
		r.noteFound()
	}
}

func (r *rollout) noteFound() {
	message := fmt.Sprintf("Found new replica set %q", r.current.Name)
	r.noteProgressing(corev1.ConditionTrue, util.FoundNewRSReason, message)
}

// cleanUp removes the oldest ReplicaSets beyond revisionHistoryLimit that certainly have no Pods.
func (r *rollout) cleanUp() {
	limit := ptr.Deref(r.Deployment.Spec.RevisionHistoryLimit, math.MaxInt32)
	history := lo.Filter(r.old, func(set *appsv1.ReplicaSet, _ int) bool {
		return set.DeletionTimestamp == nil && set.Name != r.kept.AvailableReplicaSet
	})
	sort.Sort(util.ReplicaSetsByRevision(history))
	reason := action.Reason(fmt.Sprintf("more than %d old ReplicaSets", limit))
	for _, set := range history[:max(0, len(history)-int(limit))] {
		if size(set) == 0 && r.reasons[set.UID] == nil &&
			set.Status.Replicas == 0 && set.Generation <= set.Status.ObservedGeneration {
			r.deletions = append(r.deletions, Delete{r.observed[set.UID], reason})
		}
	}
}

// setName is the Deployment's name with the hash, cut to what a name may be.
func setName(deployment, hash string) string {
	most := validation.DNS1123SubdomainMaxLength - 1 - len(hash)
	return deployment[:min(len(deployment), most)] + "-" + hash
}
