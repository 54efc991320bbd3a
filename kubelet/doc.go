// Package kubelet is the node agent: it makes this host a Node of the cluster and runs the Pods
// that are bound to it. It shares nothing with other components but the API server, and controls
// the container runtime through CRI.
//
//	pod/         one worker per Pod: observe, plan, act, report. Start reading here.
//	cri/         what the runtime reports, and its events
//	containers/  renders CRI configs and environments
//	volumes/     mounts volumes and keeps their contents fresh
//	images/      pulls images, and removes unused ones
//	logs/        rotates the logs of containers
//	probes/      startup, liveness and readiness probes
//	cgroups/     the cgroups of Pods
//	node/        the Node object: registration, Lease, status and conditions
//	server/      HTTPS on port 10250: logs, exec, attach, port-forward, metrics
//	stats/       what Pods and the node use
//
// kubelet.go wires what every node has. run_linux.go adds what this host has: its container
// runtime, cgroups, volumes and the server. Package simulated wires nodes without a host.
package kubelet
