// Package programs is kube-apiserver and etcd as programs of their own, with upstream's flags, for test suites that start
// them themselves: controller-runtime's envtest looks for programs of these names in KUBEBUILDER_ASSETS. Flyball's own
// control plane does not use it; see package controlplane. kubectl, the third such program, is the command line's.
//
// They are upstream's, and differ in how long they take:
//
//   - etcd's only member elects itself at once;
//   - kube-apiserver's first objects are made without pauses, and health requests that come early wait for the answer
//     instead of being told to ask again;
//   - both stop when the requests in flight have ended, and at the latest after stopPatience: no client is waited for
//     that keeps a connection or a watch open.
//
// With Behind, other loops run in the process of kube-apiserver, and it is healthy when they work. With PodCheck, it refuses
// Pods that those would not understand.
package programs

import "time"

// stopPatience is how long a program goes on after it was asked to end. Nothing that was acknowledged is lost when it ends in
// the middle of its work: kube-apiserver keeps nothing, and etcd has written what it acknowledged.
const stopPatience = 500 * time.Millisecond
