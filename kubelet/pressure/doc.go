// Package pressure decides what a node does when it runs out of memory, disk space, inodes or PIDs:
// which conditions the Node has, what is removed first, and which Pod is ended.
//
//	signals.go      signals, and what each means: resource, condition, files of a Pod
//	thresholds.go   thresholds, from the maps of a KubeletConfiguration
//	plan.go         Plan: Observation → Decision
//	rank.go         which Pod goes first
//	evict.go        what a Pod is ended with
//
// The rules are those of https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/.
// The package is pure. It measures nothing, and no component uses it yet: statistics become an
// Observation, and a Decision becomes conditions of the Node, garbage collection, and a call of
// pod.Manager.Terminate.
package pressure
