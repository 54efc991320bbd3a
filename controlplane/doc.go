// Package controlplane runs the control plane of one server in this process: etcd, kube-apiserver, kube-scheduler and
// upstream's controllers, all of them upstream's own code, started from their own options.
//
//	Run ── lock the data directory, certificates, kubeconfigs (credentials.go, pki/)
//	    ── etcd             (etcd.go)               on a unix socket that only root and kube-apiserver reach
//	    ── kube-apiserver   (apiserver.go)          first-start objects in bootstraproles.go
//	    ── kube-scheduler, kube-controller-manager  (scheduler.go, controllermanager.go)
//	    ── bootstrap        (bootstrap.go)          applies manifests/ and Config.Manifests
//
// Each part has its own identity and kubeconfig and talks to kube-apiserver over TLS like a process of its own would. The
// ReplicaSet and Deployment controllers are switched off here; package controllers has ours.
//
// It is the only writer of DataDir/server and RunDir/etcd, and of the credentials that it leaves in DataDir/agent for the
// node agent of this machine. Upstream's code keeps feature gates, metrics and component configuration in package-level
// variables and takes some of them only once, so Run can be called once in the life of a process.
package controlplane
