package deployment

import (
	"math"
	"sort"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// fenceposts resolves maxSurge, rounded up, and maxUnavailable, rounded down, to Pods. Both may be percentages of
// replicas. If both come out as 0, one Pod may be unavailable, since nothing could move otherwise.
func fenceposts(strategy appsv1.DeploymentStrategy, replicas int32) (surge, unavailable int32) {
	if strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return 0, 0
	}
	rolling := ptr.Deref(strategy.RollingUpdate, appsv1.RollingUpdateDeployment{})
	// Errors are excluded by validation; 0 is then the careful answer.
	quarter := intstr.FromString("25%")
	s, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxSurge, quarter), int(replicas), true)
	u, _ := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(rolling.MaxUnavailable, quarter), int(replicas), false)
	if s == 0 && u == 0 {
		u = 1
	}
	return int32(s), min(int32(u), replicas)
}

// roll is the strategy RollingUpdate. The invariants: never more than replicas+surge Pods by our doing, never fewer than
// replicas-unavailable available ones.
func (r *rollout) roll() {
	r.keep = r.partition()
	wanted := r.replicas - r.keep
	r.ensureCurrent(min(wanted, max(0, r.replicas+r.surge-sum(r.old, specReplicas))))

	// 1. Grow the current ReplicaSet into the room there is. It shrinks only if the Deployment did.
	room := max(0, r.replicas+r.surge-sum(r.all(), specReplicas))
	size := specReplicas(r.current)
	if target := min(wanted, size+room); target != size {
		r.scalef(r.current, target, "%d Pods wanted, room for %d more", wanted, room)
		return
	}

	// 2. Shrink the old ones by what is not needed any more.
	if r.shrinkOld() {
		return
	}

	// 3. Forget the oldest.
	if complete(r.Deployment, &r.Deployment.Status) {
		r.cleanUp()
	}
}

// shrinkOld scales old ReplicaSets down and says whether it did.
func (r *rollout) shrinkOld() bool {
	least := r.replicas - r.unavailable
	// Pods of the current ReplicaSet that are not available yet may never be: they must not cost old Pods, or a bad
	// template would take the Deployment down bit by bit.
	spare := sum(r.all(), specReplicas) - least - max(0, specReplicas(r.current)-availableReplicas(r.current))
	spare = min(spare, sum(r.old, specReplicas)-r.keep)
	shrunk := false

	// 1. Unhealthy old Pods first: losing them makes nothing less available, keeping them would block the rollout. The
	// ReplicaSet loop deletes Pods that are not ready before others.
	for _, m := range r.old {
		if n := min(spare, specReplicas(m)-availableReplicas(m)); n > 0 {
			r.scalef(m, specReplicas(m)-n, "%d of its Pods are not available", n)
			spare -= n
			shrunk = true
		}
	}

	// 2. Then available ones: if anything is still spare, it is as many as are available beyond what has to be.
	for _, m := range r.old {
		if n := min(spare, specReplicas(m)); n > 0 {
			r.scalef(m, specReplicas(m)-n, "enough Pods are available without %d of its own", n)
			spare -= n
			shrunk = true
		}
	}
	return shrunk
}

// recreate is the strategy Recreate: no Pod of the current template before the last old one is gone.
func (r *rollout) recreate() {
	stopping := false
	for _, m := range r.old {
		if specReplicas(m) > 0 {
			r.scalef(m, 0, "old Pods go first")
			stopping = true
		}
	}
	for _, m := range r.old {
		if m.seen.Status.Replicas > 0 || r.Running[m.seen.UID] > 0 {
			stopping = true
		}
	}
	if stopping {
		return
	}
	r.ensureCurrent(r.replicas)
	if specReplicas(r.current) != r.replicas {
		r.scalef(r.current, r.replicas, "no old Pod is left")
	}
	if complete(r.Deployment, &r.Deployment.Status) {
		r.cleanUp()
	}
}

// scaled says whether replicas of the Deployment changed since its ReplicaSets were last scaled.
func (r *rollout) scaled() bool {
	for _, m := range r.all() {
		desired, ok := number(m.want, DesiredReplicasAnnotation)
		if specReplicas(m) > 0 && ok && desired != r.replicas {
			return true
		}
	}
	return false
}

// rescale brings a Deployment to its size without rolling anything out: it was scaled, or it is paused. It says whether it
// could.
func (r *rollout) rescale() bool {
	var active []*member
	for _, m := range r.all() {
		if specReplicas(m) > 0 {
			active = append(active, m)
		}
	}

	// 1. One ReplicaSet has all Pods; if none has, the newest gets them.
	if len(active) == 0 && len(r.all()) > 0 {
		active = r.all()[len(r.all())-1:]
	}
	if len(active) == 1 {
		r.scalef(active[0], r.replicas, "%d Pods wanted", r.replicas)
		return true
	}

	// 2. The rollout is over but for old Pods, of an adopted ReplicaSet perhaps.
	if r.saturated() {
		for _, m := range r.old {
			if specReplicas(m) > 0 {
				r.scalef(m, 0, "the current ReplicaSet has all Pods")
			}
		}
		return true
	}

	// 3. In the midst of a rollout all keep their share, so that scaling neither hastens nor holds up the rollout.
	if len(active) == 0 || r.Deployment.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return false
	}
	r.share(active)
	return true
}

// share distributes the Pods to add or remove over ReplicaSets in proportion to their sizes, the rest to the largest.
func (r *rollout) share(active []*member) {
	allowed := int32(0)
	if r.replicas > 0 {
		allowed = r.replicas + r.surge
	}
	add := allowed - sum(active, specReplicas)
	// Of equal ones the newer comes first when growing, the older when shrinking.
	sort.SliceStable(active, func(i, j int) bool {
		a, b := active[i], active[j]
		if specReplicas(a) != specReplicas(b) {
			return specReplicas(a) > specReplicas(b)
		}
		return older(a.want, b.want) == (add < 0)
	})
	sizes, added := make([]int32, len(active)), int32(0)
	for i, m := range active {
		sizes[i] = specReplicas(m)
		if add != 0 {
			part := r.part(m, allowed)
			if add > 0 {
				part = min(part, add-added)
			} else {
				part = max(part, add-added)
			}
			sizes[i] += part
			added += part
		}
	}
	sizes[0] = max(0, sizes[0]+add-added)
	for i, m := range active {
		r.scalef(m, sizes[i], "its share of %d Pods", allowed)
	}
}

// part is by how much a ReplicaSet changes when the Deployment's size with surge becomes allowed.
func (r *rollout) part(m *member, allowed int32) int32 {
	size := specReplicas(m)
	if r.replicas == 0 {
		return -size
	}
	before, ok := number(m.want, MaxReplicasAnnotation)
	if !ok || before == 0 {
		// Somebody removed or spoilt the annotation. The actual size is a guess that stays within the limits.
		if before = r.Deployment.Status.Replicas; before == 0 {
			return 0
		}
	}
	return int32(math.Round(float64(size)*float64(allowed)/float64(before))) - size
}

// saturated says whether the current ReplicaSet has all Pods of the Deployment, knows so, and all are available.
func (r *rollout) saturated() bool {
	if r.current == nil {
		return false
	}
	desired, ok := number(r.current.want, DesiredReplicasAnnotation)
	return ok && desired == r.replicas && specReplicas(r.current) == r.replicas && availableReplicas(r.current) == r.replicas
}

// scalef gives a member a size, and notes on it the size of the Deployment that this was decided for.
func (r *rollout) scalef(m *member, size int32, format string, args ...any) {
	annotated := r.annotateSize(m.want)
	if size == specReplicas(m) && !annotated {
		return
	}
	m.want.Spec.Replicas = &size
	r.changef(m, format, args...)
}

func (r *rollout) annotateSize(set *appsv1.ReplicaSet) bool {
	desired := annotate(set, DesiredReplicasAnnotation, strconv.Itoa(int(r.replicas)))
	most := annotate(set, MaxReplicasAnnotation, strconv.Itoa(int(r.replicas+r.surge)))
	return desired || most
}

func specReplicas(m *member) int32 {
	return *m.want.Spec.Replicas
}

// availableReplicas leaves out Pods that the ReplicaSet was told to delete and still reports.
func availableReplicas(m *member) int32 {
	return min(m.want.Status.AvailableReplicas, specReplicas(m))
}

func sum(members []*member, of func(*member) int32) int32 {
	var total int32
	for _, m := range members {
		total += of(m)
	}
	return total
}
