// Package pod is the heart of the node agent: one worker per Pod makes what runs
// on this node equal to what the API server wants, and reports what runs.
//
// Each worker does the same whenever it is woken, by a change of the Pod, an
// event of the runtime, a probe, a finished operation or a time that Plan asked
// for:
//
//	observe   worker.go        the Pod, CRI, probes, and what is under way, into a State
//	plan      plan*.go         Plan(State, now): the next actions, each with a reason
//	act       act*.go          each action in a goroutine of its own; its end wakes the worker
//	report    status*.go       Status(State, now): the v1.PodStatus, written by writer.go
//
// plan.go runs a Pod, plan_containers.go brings its containers up in order,
// plan_restart.go makes all of them begin again in place, plan_resize.go changes what
// they may use while they run, and plan_end.go brings everything down, whatever the
// cause. Two decisions concern all Pods of the node at
// once: plan_admit.go, who may run here, and plan_allocate.go, who gets more.
//
// Nothing that a worker remembers is needed for correctness. How often a
// container restarted, when it may restart, which attempt comes next: all of it
// is read from the runtime's list of containers, of which the last dead one of
// each name is kept. What is under way dies with the process and is begun again.
// The one thing that the runtime cannot tell, what a resize has promised, is kept
// in a file, see Allocation.
//
// Pods that only the runtime or a leftover directory knows get a worker too: it
// ends and removes what is left.
//
// The package is the only one that creates, starts, stops and removes sandboxes
// and containers, and the only writer of the status of this node's Pods. It
// leaves the rendering of CRI configs to package containers, files to volumes,
// pulling to images, cgroups to cgroups, and probing to probes.
package pod
