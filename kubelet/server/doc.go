// Package server is the kubelet's HTTPS server (port 10250): what the API server
// asks for kubectl logs, exec, attach, port-forward and top, and what Prometheus
// scrapes.
//
// It reads: the pods as the workers know them (Pods), the runtime, the logs on
// disk, statistics. It writes nothing, and starts nothing but what a user typed
// into kubectl exec. Who may ask is decided by the API server (TokenReview,
// SubjectAccessReview); attributes.go says which permission a path takes.
// Streams are not carried here: the runtime's own streaming server is, and this
// one connects the two ends.
package server
