package deployment

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/deployment/util"
)

// Upstream's functions for the annotations of ReplicaSets, which kubectl rollout reads too, want a
// logger; these do not, so that plans can call them.

// annotate copies the Deployment's annotations to the ReplicaSet of its template, gives that the
// highest revision of all, notes the one that it had, and says whether anything changed.
func annotate(d *appsv1.Deployment, set *appsv1.ReplicaSet, old []*appsv1.ReplicaSet, exists bool) bool {
	next := strconv.FormatInt(util.MaxRevision(klog.Logger{}, old)+1, 10)
	ctx := klog.NewContext(context.Background(), klog.Logger{})
	const history = 2000 // bytes of the annotation that lists the former revisions
	return util.SetNewReplicaSetAnnotations(ctx, d, set, next, exists, history)
}

// desiredReplicas is the Deployment's size when a ReplicaSet was last scaled, if that is known.
func desiredReplicas(set *appsv1.ReplicaSet) (int32, bool) {
	return util.GetDesiredReplicasAnnotation(klog.Logger{}, set)
}

// proportion is the share of a ReplicaSet when add Pods are distributed and added already are.
func proportion(d *appsv1.Deployment, set *appsv1.ReplicaSet, add, added int32) int32 {
	return util.GetReplicaSetProportion(klog.Logger{}, set, *d, add, added)
}
