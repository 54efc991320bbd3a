// Package node keeps this machine's Node object: that it exists and carries the
// right labels (registration), that its Lease is renewed (lease), and that its
// status tells the truth (status). Three small loops, each of them observe →
// plan → act; plan.go holds the deciding half of all of them and is pure.
//
// This package is the only writer of the Node's status, of the labels that it
// sets itself, and of the Node's Lease in kube-node-lease. Taints are left to
// whoever writes them upstream: the API server's TaintNodesByCondition admission
// and the node lifecycle controller add and remove the ones for conditions.
// Whether a Pod may stay on a node under pressure is decided elsewhere.
package node
