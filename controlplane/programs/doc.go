// Package programs is kube-apiserver and etcd as programs of their own, with upstream's flags, for
// test suites that start them themselves: controller-runtime's envtest expects programs of these
// names in KUBEBUILDER_ASSETS. Flyball's own control plane does not use it; see package
// controlplane. cmd/flyball has kubectl, the third program.
//
// They are upstream's, but start and stop faster:
//
//   - etcd's only member elects itself at once;
//   - kube-apiserver's first objects are created without pauses, and early health requests wait for
//     the answer instead of failing;
//   - both stop when the requests in flight have ended, and at the latest after stopGrace, even if
//     clients keep a connection or a watch open.
//
// With Behind, other loops run in the process of kube-apiserver, which is healthy when they are up.
// With PodCheck, it rejects Pods that those loops could not run.
package programs

import "time"

// stopGrace is how long a program may take to stop. Ending it then loses no acknowledged write:
// kube-apiserver stores nothing, and etcd has written what it has acknowledged.
const stopGrace = 500 * time.Millisecond
