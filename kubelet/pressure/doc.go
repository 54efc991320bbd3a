// Package pressure decides what a node does when it runs out of memory, disk space, inodes or PIDs:
// which conditions the Node has, what is removed first, and which Pod is ended.
//
// Plan makes a Decision from an Observation. The rules are those of
// https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/.
// The package is pure. It measures nothing, and no component uses it yet: statistics become an
// Observation, and a Decision becomes conditions of the Node, garbage collection, and a call of
// pod.Manager.Terminate.
package pressure
