// Package instance makes sure that a machine has one Flyball: it locks the run-time directory, leaves there who runs and
// with which configuration, and finds and ends the processes that do. `flyball down` cleans up by what it left.
//
// A server and an agent may be two processes, so there are two locks; `flyball up` holds both.
package instance

// RunDir is where run-time files lie. It is fixed: a machine has one node agent, and everybody finds it here.
const RunDir = "/run/flyball"

// AdminKubeconfig is where the kubeconfig of the administrator lies.
const AdminKubeconfig = "/etc/flyball/kubeconfig"
