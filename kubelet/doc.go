// Package kubelet is the node agent: it makes this machine a Node of the cluster
// and runs the Pods that are bound to it. It meets the other parts at the API
// server only, and speaks CRI to the container runtime.
//
//	pod/         one worker per Pod: observe, plan, act, report. Start reading here.
//	cri/         what the runtime knows, and its events
//	containers/  renders CRI configs and environments
//	volumes/     puts volumes onto the host and keeps them fresh
//	images/      pulls images
//	logs/        keeps the logs of containers small
//	probes/      startup, liveness and readiness probes
//	cgroups/     the cgroups of Pods
//	node/        the Node object: registration, Lease, status
//	server/      HTTPS on port 10250: logs, exec, attach, port-forward, metrics
//	stats/       what Pods and the node use
//	containerd/  the bundled runtime as a child process
//	simulated/   nodes that run nothing: these rooms over a runtime in memory
//
// kubelet.go wires together what every node has; machine.go puts it onto this
// machine and its runtime, and package simulated onto what is in their place.
package kubelet
