package deployment

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
)

// The functions below write and read the annotations that upstream's Deployment controller uses;
// kubectl rollout reads some of them too. They call upstream's functions with a logger that
// discards everything, because plans have no side effects and so no logger.

// annotate copies the Deployment's annotations to set, the ReplicaSet of its template. It gives set
// the revision after the highest of old and appends set's former revision to its history. exists
// says whether set is in the API yet. It reports whether it changed set.
func annotate(d *appsv1.Deployment, set *appsv1.ReplicaSet, old []*appsv1.ReplicaSet, exists bool) bool {
	next := strconv.FormatInt(util.MaxRevision(klog.Logger{}, old)+1, 10)
	ctx := klog.NewContext(context.Background(), klog.Logger{})
	const maxHistory = 2000 // characters of the annotation that lists former revisions, as upstream
	return util.SetNewReplicaSetAnnotations(ctx, d, set, next, exists, maxHistory)
}

// desiredReplicas returns how many replicas the Deployment's spec had at the time set was last
// scaled; false if set has no such annotation, or an invalid one.
func desiredReplicas(set *appsv1.ReplicaSet) (int32, bool) {
	return util.GetDesiredReplicasAnnotation(klog.Logger{}, set)
}

// proportion returns by how many replicas to scale set. toAdd is how many replicas are to be
// distributed over all ReplicaSets (negative: removed), added how many of these were given to other
// ReplicaSets already.
func proportion(d *appsv1.Deployment, set *appsv1.ReplicaSet, toAdd, added int32) int32 {
	return util.GetReplicaSetProportion(klog.Logger{}, set, *d, toAdd, added)
}
