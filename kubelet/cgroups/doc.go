// Package cgroups keeps the cgroups of Pods: the top cgroup of all Pods, one
// per quality-of-service class below it, one per Pod below those, with upstream's
// names (cgroupfs driver), so that tools of the field find them:
//
//	/kubepods, /kubepods/burstable, /kubepods/besteffort
//	/kubepods/podUID (Guaranteed), /kubepods/burstable/podUID, /kubepods/besteffort/podUID
//
// Both versions of cgroups work. The cgroups of containers are made by the
// runtime, below the Pod's; this package is the only writer of all above them.
package cgroups
