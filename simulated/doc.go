// Package simulated runs nodes that run nothing: the node agent of this
// repository over a container runtime that keeps Pods and containers in memory.
// Pods that are bound to such a node become Running and Ready, finish when they
// belong to a Job, and go away gracefully, without root, network or disk. What a
// container does is said by annotations on its Pod (behaviour.go, and
// docs/simulated-nodes.md for users).
//
//	run.go        Run: what the nodes of one process share
//	node.go       one node: the agent's rooms over the runtime
//	runtime*.go   CRI's RuntimeService, sandbox.go and container.go its objects
//	images.go     CRI's ImageService
//	behaviour.go  the annotations
//	probes.go     answers to probes
//	server.go     kubectl logs, exec, attach
//
// Everything above CRI is the real agent: package pod plans and acts, package
// node registers the Node and renews its Lease, package volumes finds out whether
// every ConfigMap and Secret is there, and so on.
//
// Who asks: what a node writes (its Node, its Lease, the status of its Pods, the
// end of a deleted Pod) it writes as system:node:NAME, so that authorization,
// admission and audit see what they see of any node. What is read is read once
// for all nodes of the process, and therefore with the identity that Run was
// given: a node may watch only what is its own, and a thousand nodes would be
// several thousand watches. The same holds for Events and for service account tokens.
package simulated
