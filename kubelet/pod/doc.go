// Package pod is the heart of the node agent: one worker per Pod makes what runs on this node equal
// to what the API server wants, and reports what runs.
//
// A worker syncs whenever something happened: the Pod changed, the runtime sent an event, a probe
// has a new result, an action ended, or a time came that the plan asked for. Each sync is the same:
//
//	observe   observe.go    the Pod, CRI, probes, and what is in flight, into a plan.State
//	plan      plan/         plan.Plan(State, now): the next actions, each with a reason
//	act       act*.go       each action in a goroutine of its own; its end wakes the worker
//	report    writer.go     plan.Status(State, now), written to the API server
//
// Two decisions concern all Pods of the node and are made under one lock: admit.go, whether a Pod
// may run here, and allocate.go, which resizes are granted.
//
// Nothing that a worker remembers is needed for correctness. How often a container restarted, when
// it may restart, which attempt comes next: all of it is read from the runtime's list of
// containers, which keeps the last dead one of each name. What is in flight ends with the process
// and is planned again. Only the resources that a resize was granted are not in the runtime;
// allocation_files.go keeps them on disk.
//
// A Pod that only the runtime or a leftover directory knows gets a worker too, which ends and
// removes it.
//
// The package is the only one that creates, starts, stops and removes sandboxes and containers, and
// the only writer of the status of this node's Pods. Rendering CRI configs is left to package
// containers, files to volumes, pulling to images, cgroups to cgroups, and probing to probes.
package pod
