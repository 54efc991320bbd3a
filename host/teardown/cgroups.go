//go:build linux

package teardown

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
	"github.com/samber/lo"

	"flyball.dev/host/cgroups"
)

// podsCgroup is the name that every Kubernetes node agent gives to the cgroup of Pods, in every
// hierarchy. A cgroup in it is ours only if it has the UID of a Pod of ours.
const podsCgroup = "kubepods"

// cgroupRoots are the mounted hierarchies: one of v2, and any number of v1.
func cgroupRoots() []string {
	mounts, _ := mountinfo.GetMounts(mountinfo.FSTypeFilter("cgroup", "cgroup2"))
	return lo.Map(mounts, func(m *mountinfo.Info, _ int) string { return m.Mountpoint })
}

// removeCgroups removes the cgroups of the Pods with these UIDs, and kills what still runs in them.
// It removes their parents too, once those are empty: a node agent makes them before its first Pod.
func removeCgroups(roots, uids []string) error {
	var errs []error
	for _, root := range roots {
		top := filepath.Join(root, podsCgroup)
		for _, class := range []string{"besteffort", "burstable", ""} {
			for _, uid := range uids {
				errs = append(errs, cgroups.Remove(filepath.Join(top, class, "pod"+uid)))
			}
			// Not empty while it has Pods of others.
			_ = os.Remove(filepath.Join(top, class))
		}
	}
	return errors.Join(errs...)
}
