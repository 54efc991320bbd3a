// Package node keeps the Node object of this host: that it exists and carries the right labels,
// that its Lease is renewed, and that its status and conditions are true. For example, when the
// container runtime stops answering, the condition Ready becomes False half a minute later.
//
//	controller.go         Run, and reconcile: get, observe, plan, act
//	observe.go            what the runtime and the host report
//	plan.go               State → the Node to write; pure, as all plan files
//	plan_conditions.go    decides the Node's conditions
//	plan_resources.go     capacity, reservations, allocatable
//	act.go                writes the Node, its conditions and Events
//	lease.go              renews the Lease
//	source.go             watches the Node
//	hostinfo_linux.go     reads capacity and identity of the host
//
// This package is the only writer of the Node's status, of the labels that it sets, and of the
// Node's Lease in kube-node-lease. It writes no taints: upstream's TaintNodesByCondition admission
// and node lifecycle controller add and remove the taints for conditions. It does not decide
// whether a Pod may stay on a node under pressure.
package node
