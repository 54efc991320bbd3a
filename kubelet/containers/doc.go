// Package containers renders the configs that the runtime gets: the CRI PodSandboxConfig of a Pod,
// the CRI ContainerConfig of each of its containers, and the environment of a container. It is the
// only writer of CRI configs.
//
// Everything here is a function of its arguments. The files that a container needs on the host (its
// /etc/hosts, its termination log, its subPath mounts) are described by Files and made by package
// volumes. Node has the facts about the node; DetectNode reads them once.
//
// Labels and annotations have upstream's keys, so that crictl, log shippers and monitoring agents
// find them. Package pod decides when sandboxes and containers are created.
package containers
