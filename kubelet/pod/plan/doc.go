// Package plan decides about Pods: what happens next to the containers of one, and what its status
// says. It is pure: it reads a State, which package pod observes, and a time. It imports neither a
// client nor the runtime, a clock, a context or a logger, and acts on nothing.
//
//	state.go, actions.go     what Plan reads and what it returns
//	plan.go                  Plan: volumes, sandbox and images become ready side by side
//	containers.go            containers start in order, are checked, and start again after a back-off
//	restart.go               all containers begin again in place (KEP-5532)
//	resize.go                a resize reaches the cgroups while the Pod runs
//	end.go                   whether the Pod is over, and how everything of it comes down
//	failure.go               when a failed action is planned again
//	status*.go               Status: the v1.PodStatus
//
// Two decisions concern all Pods of the node: admit.go, which of them may run here, and
// allocate.go, which resizes are granted (allocation.go: what a Pod was granted).
package plan
