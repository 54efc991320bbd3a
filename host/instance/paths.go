// Package instance makes sure that a host runs one Flyball: it locks the run-time directory,
// records there the process and its configuration, and finds and ends such processes. `flyball
// down` cleans up by that record.
//
// A server and an agent may be two processes, so there are two locks; `flyball up` holds both.
package instance

// RunDir is where run-time files lie. It is fixed: a host has one node agent, and every command
// finds it here.
const RunDir = "/run/flyball"
