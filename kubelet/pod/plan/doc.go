// Package plan decides about Pods: what happens next to the containers of one, and what its status
// says. It is pure: it reads a State, which package pod observes, and a time. It imports neither a
// client nor the runtime, a clock, a context or a logger, and acts on nothing.
//
//	state.go, memory.go      what Plan reads: what was observed, and what a worker remembers
//	actions.go, plan.go      Plan: volumes, sandbox and images become ready side by side
//	containers.go            containers start in order, are checked, and restart after a back-off
//	restart.go               all containers restart in place (KEP-5532)
//	resize.go                a resize reaches the cgroups while the Pod runs
//	end.go                   whether the Pod is over, by itself or because the node ends it, and how
//	identity.go              static Pods and their mirrors
//	status*.go               Status: the v1.PodStatus
//	admit.go, allocate.go    about all Pods: which may run here, and which resizes the node grants
package plan
