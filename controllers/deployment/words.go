package deployment

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/utils/ptr"
)

// What implements Action.
func (a Adopt) What() string { return "adopt ReplicaSet " + a.ReplicaSet.Name }

// What implements Action.
func (a Release) What() string { return "release ReplicaSet " + a.ReplicaSet.Name }

// What implements Action.
func (a Create) What() string {
	return fmt.Sprintf("create ReplicaSet %s with %d Pods", a.ReplicaSet.Name, ptr.Deref(a.ReplicaSet.Spec.Replicas, 1))
}

// What implements Action.
func (a Update) What() string {
	if from, to := ptr.Deref(a.Before.Spec.Replicas, 1), ptr.Deref(a.After.Spec.Replicas, 1); from != to {
		return fmt.Sprintf("scale ReplicaSet %s from %d to %d", a.Before.Name, from, to)
	}
	var fields []string
	if a.Before.Spec.MinReadySeconds != a.After.Spec.MinReadySeconds {
		fields = append(fields, "minReadySeconds")
	}
	for key, value := range a.After.Annotations {
		if old, found := a.Before.Annotations[key]; !found || old != value {
			fields = append(fields, key)
		}
	}
	slices.Sort(fields)
	return fmt.Sprintf("update ReplicaSet %s: %s", a.Before.Name, strings.Join(fields, ", "))
}

// What implements Action.
func (a Delete) What() string { return "delete ReplicaSet " + a.ReplicaSet.Name }

// What implements Action.
func (a SetRevision) What() string { return "number the template revision " + a.Revision }

// What implements Action.
func (a RollBack) What() string {
	return fmt.Sprintf("roll back from revision %d (ReplicaSet %s) to revision %d (ReplicaSet %s)",
		a.From.Revision, a.From.ReplicaSet, a.To.Revision, a.To.ReplicaSet)
}

// What implements Action.
func (a Refuse) What() string { return "do nothing" }
