// Package replicaset is the loop that keeps the wanted number of Pods of a ReplicaSet alive, for
// apps/v1 and apps.flyball.dev alike.
//
// controller.go watches, observes and reconciles, plan.go decides what to do and what to report,
// act.go does it.
//
// It reads ReplicaSets and Pods. It is the one writer of a ReplicaSet's status, creates and deletes
// the ReplicaSet's Pods, and writes their ControllerRef when it adopts or releases them. It leaves
// the spec of ReplicaSets to their Deployment, everything else about Pods to scheduler and kubelet,
// and the Pods of a deleted ReplicaSet to the garbage collector.
//
// # A stale cache
//
// Pods have random names, so a Pod that the cache does not show yet would be created twice. The
// loop therefore reconciles a ReplicaSet again only when the cache holds the last Pod that it
// created, adopted or released for it (internal/expectations). Pods that it deleted and that the
// cache still shows alive count as deleted. Status and ControllerRef are written with the
// resourceVersion that was read, Pods are deleted with their UID as precondition. Before the first
// adoption the loop asks the API server whether the ReplicaSet is still alive.
package replicaset
