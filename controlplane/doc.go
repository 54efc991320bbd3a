// Package controlplane runs the control plane of one server in this process: etcd, kube-apiserver,
// kube-scheduler and upstream's controllers, all of them upstream's own code, started from their
// own options.
//
//	Run (run.go)            locks the data directory, creates certificates and kubeconfigs (credentials.go, pki/), and
//	                        starts the components below in this order (component.go)
//	etcd                    etcd.go, on a unix socket that only root and kube-apiserver reach
//	kube-apiserver          apiserver.go; its first objects are in bootstraproles.go
//	kube-controller-manager controllermanager.go
//	kube-scheduler          scheduler.go
//	certificates            credentials.go renews them
//	bootstrap               bootstrap.go applies manifests/ and Config.Manifests
//	csr-approver            approve.go, approver/
//	disk                    disk.go, space/
//
// Each component has its own identity and kubeconfig and connects to kube-apiserver over TLS, as a
// process of its own would. The ReplicaSet and Deployment controllers are switched off here;
// package controllers replaces them.
//
// It is the only writer of DataDir/server and RunDir/etcd, and of the credentials in DataDir/agent
// for the node agent of this host. All state belongs to one Run. Upstream's kube-scheduler and
// kube-controller-manager register their configuration once per process
// (k8s.io/component-base/configz), so a second server needs a process of its own.
package controlplane
