// Package simulated runs nodes without processes: the node agent of this repository on a container
// runtime that has Pods and containers in memory only. Pods that are bound to such a node become
// Running and Ready, complete if they belong to a Job, and terminate gracefully, without root,
// network or disk. Annotations on a Pod say what its containers do (behaviour.go, and
// docs/simulated-nodes.md for users).
//
//	config.go     Config
//	run.go        Run, and what all nodes of one Run share
//	dispatch.go   delivers watch events to the nodes, sources.go takes them
//	node.go       one node: the agent on the runtime
//	runtime.go    CRI's RuntimeService, sandbox.go and container.go its objects
//	images.go     CRI's ImageService
//	behaviour.go  the annotations
//	probes.go     answers to probes
//	server.go     kubectl logs, exec, attach
//
// Everything above CRI is the real agent: package pod plans and acts, package node registers the
// Node and renews its Lease, package volumes checks that every ConfigMap and Secret exists, and so
// on.
//
// A node writes its Node, its Lease, the status of its Pods and the deletion of a Pod as
// system:node:NAME, so that authorization, admission and audit work as with any node. Watches,
// Events and service account tokens use the identity that Run was given, once for all nodes: a node
// may watch only its own objects, and a thousand nodes would need several thousand watches.
package simulated
