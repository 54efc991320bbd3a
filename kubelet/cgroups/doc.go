// Package cgroups keeps the cgroups of Pods: the top cgroup of all Pods, one per quality-of-service
// class below it, one per Pod below those. The names are upstream's (cgroupfs driver), so that
// tools find them:
//
//	/kubepods, /kubepods/burstable, /kubepods/besteffort
//	/kubepods/podUID (Guaranteed), /kubepods/burstable/podUID, /kubepods/besteffort/podUID
//
// Both versions of cgroups work. The runtime makes the cgroups of containers, below the Pod's; this
// package is the only writer of all above them.
package cgroups
