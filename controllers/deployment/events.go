package deployment

import (
	"github.com/samber/lo"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// Reasons of Events beside those that are conditions' too; like the messages upstream's, because people and tools search
// for them.
const (
	ScalingReplicaSetReason = "ScalingReplicaSet"
	SelectingAllReason      = "SelectingAll"
	RolledBackReason        = "RolledBack"
)

func (r *Reconciler) recordScaled(d *appsv1.Deployment, set string, from, to int32) {
	direction := lo.Ternary(from > to, "down", "up")
	if from != to {
		r.Events.Eventf(d, corev1.EventTypeNormal, ScalingReplicaSetReason, "Scaled %s replica set %s from %d to %d", direction, set, from, to)
	}
}
