package deployment

import (
	"slices"
	"sort"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/kubernetes/pkg/controller"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
)

// roll is the strategy RollingUpdate. The invariants: never more than replicas+surge Pods by our
// doing, never fewer than replicas-unavailable available ones.
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

	// 2. Shrink the old ones by what is not needed any more.
	r.shrinkOld()
}

// shrinkOld scales old ReplicaSets down.
func (r *rollout) shrinkOld() {
	least := r.replicas - r.unavailable
	// Pods of the current ReplicaSet that are not available yet may never be. They must not replace
	// old Pods, or a bad template would take the Deployment down step by step.
	spare := size(r.all()...) - least - max(0, size(r.current)-availableOf(r.current))
	spare = min(spare, size(r.old...)-r.keep)
	shrink := func(set *appsv1.ReplicaSet, most int32, why string) {
		if n := min(spare, most); n > 0 {
			r.scalef(set, size(set)-n, why, n)
			spare -= n
		}
	}

	// 1. Unavailable old Pods first: keeping them would block the rollout. The ReplicaSet loop
	// deletes Pods that are not ready before others.
	for _, set := range r.old {
		shrink(set, size(set)-availableOf(set), "%d of its Pods are not available")
	}

	// 2. Then available ones: what is still spare is available beyond the minimum.
	for _, set := range r.old {
		shrink(set, size(set), "enough Pods are available without %d of its own")
	}
}

// recreate is the strategy Recreate: no Pod of the current template before the last old one is
// gone.
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

// scaled says whether replicas of the Deployment changed since its ReplicaSets were last scaled.
func (r *rollout) scaled() bool {
	return lo.SomeBy(controller.FilterActiveReplicaSets(r.all()), func(set *appsv1.ReplicaSet) bool {
		desired, ok := desiredReplicas(set)
		return ok && desired != r.replicas
	})
}

// rescale brings a Deployment that was scaled or is paused to its size without a rollout, and says
// whether it could.
func (r *rollout) rescale() bool {
	// 1. One ReplicaSet has all Pods; if none has, the newest gets them.
	if only := util.FindActiveOrLatest(r.current, slices.Clone(r.old)); only != nil {
		r.scalef(only, r.replicas, "%d Pods wanted", r.replicas)
		return true
	}

	// 2. Only old Pods, of an adopted ReplicaSet perhaps, remain of a rollout.
	if util.IsSaturated(r.Deployment, r.current) {
		for _, set := range controller.FilterActiveReplicaSets(r.old) {
			r.scalef(set, 0, "the current ReplicaSet has all Pods")
		}
		return true
	}

	// 3. During a rollout all keep their share, so that scaling neither hastens nor delays the
	// rollout.
	active := controller.FilterActiveReplicaSets(r.all())
	if len(active) == 0 || r.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false
	}
	r.share(active)
	return true
}

// share distributes the Pods to add or remove over ReplicaSets in proportion to their sizes; the
// largest gets the remainder.
func (r *rollout) share(active []*appsv1.ReplicaSet) {
	allowed := int32(0)
	if r.replicas > 0 {
		allowed = r.replicas + r.surge
	}
	add := allowed - size(active...)
	// Of equal ones the newer comes first when growing, the older when shrinking.
	if add < 0 {
		sort.Sort(controller.ReplicaSetsBySizeOlder(active))
	} else {
		sort.Sort(controller.ReplicaSetsBySizeNewer(active))
	}
	sizes, added := make([]int32, len(active)), int32(0)
	for i, set := range active {
		part := proportion(r.Deployment, set, add, added)
		sizes[i], added = size(set)+part, added+part
	}
	sizes[0] = max(0, sizes[0]+add-added)
	for i, set := range active {
		r.scalef(set, sizes[i], "its share of %d Pods", allowed)
	}
}

// scalef gives a ReplicaSet a size, and notes on it the size of the Deployment that this was
// decided for. One that was scaled down grows again only when its status shows the smaller size:
// until then it may delete the Pods that it reports as available.
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
