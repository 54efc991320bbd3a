// Package server is the kubelet's HTTPS server (port 10250). The API server calls it for kubectl
// logs, exec, attach, port-forward and top; Prometheus scrapes it.
//
//	server.go      the paths and who serves each
//	auth.go        who may call: TokenReview and SubjectAccessReview
//	attributes.go  which permission a path needs
//	logs.go        logs of containers and of the host
//	stream.go      exec, attach, port-forward: connects the caller with the runtime's streaming server
//	pods.go        lists of Pods
//	metrics.go     /metrics and /metrics/resource
//
// It reads the Pods as the workers know them, the runtime, logs and statistics. It writes nothing,
// and starts nothing but the commands of kubectl exec.
package server
