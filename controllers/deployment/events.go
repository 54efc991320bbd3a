package deployment

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
)

// Reasons of Events beside those that are conditions' too.
const (
	ScalingReplicaSetReason = "ScalingReplicaSet"
	SelectingAllReason      = "SelectingAll"
	RolledBackReason        = "RolledBack"
)

// events says on the Deployment what was done, in upstream's words: people and tools look for them.
type events struct{ record.EventRecorder }

func (e events) scaled(d *appsv1.Deployment, set string, from, to int32) {
	direction := "up"
	if to < from {
		direction = "down"
	}
	e.Eventf(d, corev1.EventTypeNormal, ScalingReplicaSetReason, "Scaled %s replica set %s from %d to %d", direction, set, from, to)
}

func (e events) failedCreate(d *appsv1.Deployment, set string, err error) {
	e.Eventf(d, corev1.EventTypeWarning, ReplicaSetCreateErrorReason, "Failed to create new replica set %q: %v", set, err)
}

func (e events) refused(d *appsv1.Deployment, refusal Refuse) {
	e.Event(d, corev1.EventTypeWarning, SelectingAllReason, refusal.Why())
}

func (e events) rolledBack(d *appsv1.Deployment, rollBack RollBack) {
	e.Event(d, corev1.EventTypeWarning, RolledBackReason, rollBack.Message)
}
