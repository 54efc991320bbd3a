// Package checkpoint restores an earlier state of a cluster that is used for tests: it makes
// kube-apiserver's keys in etcd equal to those of an earlier revision.
//
// Every object that differs is written or deleted in a revision of its own, as a client would, so
// that resource versions only grow, and watches, caches and informers follow by ordinary events.
// UIDs and all other fields are those of the checkpoint.
//
// The caller of Restore first stops all controllers, since they act on what they remember, and
// blocks requests that write.
//
//	controller.go connects to etcd, observes, plans and acts until both states are equal
//	plan.go       the difference of two states
package checkpoint
