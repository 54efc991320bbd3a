// Package probes runs the startup, liveness and readiness probes of the containers on this node.
//
// The pod worker sets which containers run (Manager.Set), gets the Pods whose verdicts changed from
// Manager.Changes, and reads the verdicts from Manager.Results. It decides what follows from them:
// restarts of containers, and the conditions in the Pod's status.
//
// Each probe is one loop (manager.go): wait until it is due, make an attempt (probe.go), observe
// the outcome. plan.go has all rules (delays, thresholds, when a probe rests) as a pure state
// machine.
//
// Nothing is stored: after a restart of the agent, the first verdicts come from the Pod's status,
// so that a container that was ready stays ready.
package probes
