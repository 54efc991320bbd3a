// Package pod is the heart of the node agent: one worker per Pod makes what runs on this node equal
// to what the API server wants, and reports what runs.
//
//	source.go    the informer calls Manager.podChanged (manager.go), which puts
//	inbox.go     an update into the worker's inbox: a changed Pod, a change of the runtime, the result
//	             of an action, a decision to end the Pod
//	worker.go    the worker takes the updates and syncs, or syncs at a time that the plan set:
//	observe.go   observe: the Pod, CRI and probes, into a plan.State
//	admit.go     admit: may the Pod run here? One lock for all Pods of the node
//	allocate.go  allocate: which resources does it get? The same lock
//	plan/        plan: plan.Plan(State, now) returns the next actions, each with a reason
//	act*.go      act: each action in a goroutine of its own, whose result is an update
//	writer.go    report: plan.Status(State, now), written to the API server
//
// The worker's memory is not needed for correctness: restarts, back-offs and attempts are read from
// the runtime, which keeps the last dead container of each name. Only the resources that a resize
// was granted are not there; allocation_files.go keeps them on disk. A Pod that only the runtime or
// a leftover directory knows gets a worker too, which ends and removes it.
//
// The package is the only one that creates, starts, stops and removes sandboxes and containers, and
// the only writer of the status of this node's Pods. It leaves CRI configs to package containers,
// files to volumes, pulling to images, cgroups to cgroups, and probing to probes.
package pod
