// Package containers renders what the runtime is asked to create: the CRI
// PodSandboxConfig of a Pod and the CRI ContainerConfig of each of its
// containers, and the environment of a container.
//
// Everything here is a function of its arguments. The package starts nothing,
// mounts nothing and writes nothing: files that a container needs on the host
// (its /etc/hosts, its termination log, its subPath mounts) are only described,
// by Files, and made by package volumes. What the node is like is described once
// by Node, which DetectNode fills in.
//
// Labels and annotations carry the keys that upstream's kubelet uses, so that
// crictl, log shippers and monitoring agents find what they look for.
//
// It is the only writer of CRI configs. Who creates the sandbox and the
// containers, and when, is the business of package pod.
package containers
