// Package checkpoint takes a cluster that is used for tests back to what it was: it makes what kube-apiserver keeps in etcd
// equal to what it kept at an earlier revision.
//
// Time goes on while the state goes back. Every object that differs is written or deleted by a revision of its own, as if
// somebody had done it by hand, so that resource versions only grow, and watches, caches and informers follow by ordinary
// events. UIDs and all else in an object are those of the checkpoint.
//
// Who calls Restore sees to it that nobody acts on what was: that controllers have stopped, since they remember what they
// did and may be about to do more of it, and that requests that write wait until it returns.
package checkpoint
