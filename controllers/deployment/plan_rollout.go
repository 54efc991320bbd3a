package deployment

import (
	"sort"

	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
)

// roll is the strategy RollingUpdate. The invariants: never more than replicas+surge Pods by our
// doing, never fewer than replicas-unavailable available ones.
func (r *rollout) roll() {
	r.keep = r.partition()
	wanted := r.replicas - r.keep
	r.ensureCurrent(min(wanted, max(0, r.replicas+r.surge-size(r.old))))

	// 1. Scale the current ReplicaSet up as far as maxSurge allows. It shrinks only if the
	// Deployment did.
	allowed := max(0, r.replicas+r.surge-size(r.all()))
	if target := min(wanted, r.current.size()+allowed); target != r.current.size() {
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
	spare := size(r.all()) - least - max(0, r.current.size()-r.current.available())
	spare = min(spare, size(r.old)-r.keep)
	shrink := func(m *member, most int32, why string) {
		if n := min(spare, most); n > 0 {
			r.scalef(m, m.size()-n, why, n)
			spare -= n
		}
	}

	// 1. Unavailable old Pods first: keeping them would block the rollout. The ReplicaSet loop
	// deletes Pods that are not ready before others.
	for _, m := range r.old {
		shrink(m, m.size()-m.available(), "%d of its Pods are not available")
	}

	// 2. Then available ones: what is still spare is available beyond the minimum.
	for _, m := range r.old {
		shrink(m, m.size(), "enough Pods are available without %d of its own")
	}
}

// recreate is the strategy Recreate: no Pod of the current template before the last old one is
// gone.
func (r *rollout) recreate() {
	stopping := false
	for _, m := range r.old {
		stopping = stopping || m.size() > 0 || m.seen.Status.Replicas > 0 || r.Running[m.seen.UID] > 0
		if m.size() > 0 {
			r.scalef(m, 0, "old Pods go first")
		}
	}
	if stopping {
		return
	}
	r.ensureCurrent(r.replicas)
	if r.current.size() != r.replicas {
		r.scalef(r.current, r.replicas, "no old Pod is left")
	}
}

// scaled says whether replicas of the Deployment changed since its ReplicaSets were last scaled.
func (r *rollout) scaled() bool {
	return lo.SomeBy(r.all(), func(m *member) bool {
		desired, ok := desiredReplicas(m.want)
		return m.size() > 0 && ok && desired != r.replicas
	})
}

// rescale brings a Deployment that was scaled or is paused to its size without a rollout, and says
// whether it could.
func (r *rollout) rescale() bool {
	active := lo.Filter(r.all(), func(m *member, _ int) bool { return m.size() > 0 })

	// 1. One ReplicaSet has all Pods; if none has, the newest gets them.
	if len(active) == 0 && len(r.all()) > 0 {
		active = r.all()[len(r.all())-1:]
	}
	if len(active) == 1 {
		r.scalef(active[0], r.replicas, "%d Pods wanted", r.replicas)
		return true
	}

	// 2. Only old Pods, of an adopted ReplicaSet perhaps, remain of a rollout.
	if r.current != nil && util.IsSaturated(r.Deployment, r.current.want) {
		for _, m := range r.old {
			if m.size() > 0 {
				r.scalef(m, 0, "the current ReplicaSet has all Pods")
			}
		}
		return true
	}

	// 3. During a rollout all keep their share, so that scaling neither hastens nor delays the
	// rollout.
	if len(active) == 0 || r.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false
	}
	r.share(active)
	return true
}

// share distributes the Pods to add or remove over ReplicaSets in proportion to their sizes; the
// largest gets the remainder.
func (r *rollout) share(active []*member) {
	allowed := int32(0)
	if r.replicas > 0 {
		allowed = r.replicas + r.surge
	}
	add := allowed - size(active)
	// Of equal ones the newer comes first when growing, the older when shrinking.
	sort.SliceStable(active, func(i, j int) bool {
		a, b := active[i], active[j]
		if a.size() != b.size() {
			return a.size() > b.size()
		}
		return older(a, b) == (add < 0)
	})
	sizes, added := make([]int32, len(active)), int32(0)
	for i, m := range active {
		part := proportion(r.Deployment, m.want, add, added)
		sizes[i], added = m.size()+part, added+part
	}
	sizes[0] = max(0, sizes[0]+add-added)
	for i, m := range active {
		r.scalef(m, sizes[i], "its share of %d Pods", allowed)
	}
}

// scalef gives a member a size, and notes on it the size of the Deployment that this was decided
// for. One that was scaled down grows again only when its status shows the smaller size: until then
// it may delete the Pods that it reports as available.
func (r *rollout) scalef(m *member, size int32, format string, args ...any) {
	if size > m.size() && m.seen != nil &&
		m.seen.Status.ObservedGeneration < m.seen.Generation && m.seen.Status.Replicas > m.size() {
		return
	}
	annotated := util.SetReplicasAnnotations(m.want, r.replicas, r.replicas+r.surge)
	if size == m.size() && !annotated {
		return
	}
	m.want.Spec.Replicas = &size
	r.changef(m, format, args...)
}
