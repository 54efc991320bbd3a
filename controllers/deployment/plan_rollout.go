package deployment

import (
	"fmt"
	"math"
	"slices"
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

// roll is the strategy RollingUpdate. Its invariants: it never creates more than replicas+surge
// Pods, and it never takes an available Pod if that leaves fewer than replicas-unavailable.
func (r *rollout) roll() {
	r.keep = r.partition()
	wanted := r.replicas - r.keep
	r.ensureCurrent(min(wanted, max(0, r.replicas+r.surge-size(r.old...))))

	// 1. Scale the current ReplicaSet up as far as maxSurge allows. It shrinks only if the
	// Deployment did.
	allowed := max(0, r.replicas+r.surge-size(r.all()...))
	if target := min(wanted, size(r.current)+allowed); target != size(r.current) {
		r.scalef(r.current, target, "%d Pods wanted, room for %d more", wanted, allowed)
		return
	}

	// 2. Shrink the old ones by what is not needed any more. Pods of the current one that are not
	// available yet may never be: they must not replace old Pods, or a bad template would take the
	// Deployment down step by step.
	spare := size(r.all()...) - (r.replicas - r.unavailable) - (size(r.current) - availableOf(r.current))
	spare = min(spare, size(r.old...)-r.keep)
	shrink := func(set *appsv1.ReplicaSet, limit int32, why string) {
		if n := min(spare, limit); n > 0 {
			r.scalef(set, size(set)-n, why, n)
			spare -= n
		}
	}

	// Unavailable old Pods first: keeping them would block the rollout. The ReplicaSet loop deletes
	// Pods that are not ready first. What is still spare then is available beyond the minimum.
	for _, set := range r.old {
		shrink(set, size(set)-availableOf(set), "%d of its Pods are not available")
	}
	for _, set := range r.old {
		shrink(set, size(set), "enough Pods are available without %d of its own")
	}
}

// recreate is the strategy Recreate: the last old Pod is gone before the first new one comes.
func (r *rollout) recreate() {
	stopping := false
	for _, set := range r.old {
		stopping = stopping || size(set) > 0 || set.Status.Replicas > 0 || r.Running[set.UID] > 0
		if size(set) > 0 {
			r.scalef(set, 0, "old Pods go first")
		}
	}
	if stopping {
		return
	}
	r.ensureCurrent(r.replicas)
	if size(r.current) != r.replicas {
		r.scalef(r.current, r.replicas, "no old Pod is left")
	}
}

// scaled reports whether the Deployment's replicas changed since its ReplicaSets were last scaled.
func (r *rollout) scaled() bool {
	return lo.SomeBy(controller.FilterActiveReplicaSets(r.all()), func(set *appsv1.ReplicaSet) bool {
		desired, ok := desiredReplicas(set)
		return ok && desired != r.replicas
	})
}

// rescale brings a Deployment that was scaled or is paused to its size without a rollout, and
// reports whether it could.
func (r *rollout) rescale() bool {
	// 1. One ReplicaSet has all Pods; if none has, the newest gets them.
	if only := util.FindActiveOrLatest(r.current, slices.Clone(r.old)); only != nil {
		r.scalef(only, r.replicas, "%d Pods wanted", r.replicas)
		return true
	}

	// 2. The current ReplicaSet has all its Pods. Old ReplicaSets (adopted ones perhaps) go to 0.
	if util.IsSaturated(r.Deployment, r.current) {
		for _, set := range controller.FilterActiveReplicaSets(r.old) {
			r.scalef(set, 0, "the current ReplicaSet has all Pods")
		}
		return true
	}

	// 3. During a rollout all ReplicaSets keep their share, so that scaling neither hastens nor delays it.
	active := controller.FilterActiveReplicaSets(r.all())
	if len(active) == 0 || r.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false
	}
	r.share(active)
	return true
}

// share adds or removes Pods in proportion to the ReplicaSets' sizes; the largest gets the rest.
func (r *rollout) share(active []*appsv1.ReplicaSet) {
	allowed := lo.Ternary(r.replicas > 0, r.replicas+r.surge, 0)
	toAdd := allowed - size(active...)
	// Of ReplicaSets of equal size the newer comes first when growing, the older when shrinking.
	if toAdd < 0 {
		sort.Sort(controller.ReplicaSetsBySizeOlder(active))
	} else {
		sort.Sort(controller.ReplicaSetsBySizeNewer(active))
	}
	sizes, added := make([]int32, len(active)), int32(0)
	for i, set := range active {
		part := proportion(r.Deployment, set, toAdd, added)
		sizes[i], added = size(set)+part, added+part
	}
	sizes[0] = max(0, sizes[0]+toAdd-added)
	for i, set := range active {
		r.scalef(set, sizes[i], "its share of %d Pods", allowed)
	}
}

// scalef gives a ReplicaSet a size, and annotates it with the size of the Deployment that this was
// decided for. A ReplicaSet that was scaled down grows again only when its status shows the smaller
// size: until then it may delete the Pods that it reports as available.
func (r *rollout) scalef(set *appsv1.ReplicaSet, to int32, format string, args ...any) {
	from := size(set)
	if to > from && set.Status.ObservedGeneration < set.Generation && set.Status.Replicas > from {
		return
	}
	annotated := util.SetReplicasAnnotations(set, r.replicas, r.replicas+r.surge)
	if to != from || annotated {
		set.Spec.Replicas = &to
		r.changef(set, format, args...)
	}
}

// ensureCurrent plans the ReplicaSet of the current template, unless there is one.
func (r *rollout) ensureCurrent(size int32) {
	if r.current != nil {
		return
	}
	d := r.Deployment
	name, hash := newReplicaSetName(d)
	template := *d.Spec.Template.DeepCopy()
	template.Labels = labelsutil.CloneAndAddLabel(template.Labels, appsv1.DefaultDeploymentUniqueLabelKey, hash)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: d.Namespace, Labels: template.Labels},
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
	r.setProgressing(corev1.ConditionTrue, util.NewReplicaSetReason, fmt.Sprintf("Created new replica set %q", set.Name))
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
	if r.optionsStatus.Rollback != nil {
		return // the ReplicaSet that was rolled back to keeps its own place in the history
	}
	was := set.Annotations[util.RevisionAnnotation]
	switch changed := annotate(r.Deployment, set, r.old, true); {
	case changed && set.Annotations[util.RevisionAnnotation] != was:
		r.changef(set, "its template is the current one again")
		if r.Options.Rollback != (v1alpha1.Rollback{}) {
			r.setFoundNewReplicaSet() // the failure of the former template must not count against this one
		}
	case changed:
		r.changef(set, "the Deployment's annotations changed")
	}
	if r.progressing().Type == "" {
		r.setFoundNewReplicaSet()
	}
}

func (r *rollout) setFoundNewReplicaSet() {
	message := fmt.Sprintf("Found new replica set %q", r.current.Name)
	r.setProgressing(corev1.ConditionTrue, util.FoundNewRSReason, message)
}

// cleanUp removes the oldest ReplicaSets beyond revisionHistoryLimit that certainly have no Pods.
func (r *rollout) cleanUp() {
	limit := ptr.Deref(r.Deployment.Spec.RevisionHistoryLimit, math.MaxInt32)
	history := lo.Filter(r.old, func(set *appsv1.ReplicaSet, _ int) bool {
		return set.DeletionTimestamp == nil && set.Name != r.optionsStatus.AvailableReplicaSet
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

// newReplicaSetName returns the name of a new ReplicaSet of the template, and the hash at its end.
func newReplicaSetName(d *appsv1.Deployment) (name, hash string) {
	hash = controller.ComputeHash(&d.Spec.Template, d.Status.CollisionCount)
	maxPrefix := validation.DNS1123SubdomainMaxLength - 1 - len(hash)
	return d.Name[:min(len(d.Name), maxPrefix)] + "-" + hash, hash
}
