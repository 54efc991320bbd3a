// Package probes runs the startup, liveness and readiness probes of the
// containers on this node and remembers what they found.
//
// The pod worker tells the Manager which containers run (Set), is told when a
// result changed (the callback it gave to Set), and reads results (Results).
// What follows from a result is not decided here: restarting a container whose
// liveness probe failed, the conditions in the Pod's status and their writing
// are the worker's.
//
// One goroutine per probe carries out what plan.go decides. plan.go holds the
// whole of the rules (delays, thresholds, when a probe rests) as a pure state
// machine; probe.go asks the container, manager.go owns the goroutines.
//
// The Manager is the only writer of results. Nothing here is stored: after a
// restart of the agent the first results are taken from the Pod's status, so
// that a container that was ready does not flap.
package probes
