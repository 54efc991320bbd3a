// Package deployment is the loop that rolls a Deployment's Pod template out through ReplicaSets,
// for apps/v1 and apps.flyball.dev alike.
//
// controller.go watches, observes and reconciles. plan.go decides what the Deployment needs:
// plan_rollout.go the ReplicaSets and their sizes, plan_status.go what is reported,
// plan_rollback.go what only Deployments of apps.flyball.dev ask for. act.go carries a plan out.
//
// It reads Deployments, ReplicaSets and, for Recreate and rollback.onCrashLoop, Pods. It is the one
// writer of a Deployment's status and of its annotation deployment.kubernetes.io/revision, creates
// and deletes the Deployment's ReplicaSets, and writes their replicas, minReadySeconds, annotations
// and ControllerRef. Pods, and the status of ReplicaSets, it leaves to the ReplicaSet loop.
//
// # A stale cache
//
// The name of a ReplicaSet follows from the Deployment's name and the hash of the template: one
// that the cache does not show yet ends in AlreadyExists, not in a second one. A true collision of
// hashes raises status.collisionCount, which gives the next hash. All changes carry the
// resourceVersion that was read, and the loop reconciles a Deployment again only when the caches
// hold what it last wrote for it (internal/expectations). A ReplicaSet's status that lags makes a
// rollout slower, never bolder: Pods that are not counted as available are not, and a ReplicaSet
// that was scaled down is scaled up again only when its status shows the smaller size.
package deployment
