//go:build linux

package kubelet

import (
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// groups are the cgroups of Pods. *cgroups.Manager implements it.
type groups interface {
	ListPods() ([]types.UID, error)
	// Empty says whether no process is in the Pod's cgroup or below.
	Empty(uid types.UID) (bool, error)
}

// leftovers are the Pods of this agent that have files, a recorded volume or a cgroup on the host.
//
// Leftovers are killed, but every kubelet gives cgroups the same names: containers of another kubelet on
// this host, which was stopped, run on in cgroups that look like leftovers. So a Pod is ours only if it has
// a directory below our RootDir or a record of ours. If the agent crashed before it made the directory, or
// after it removed it, only an empty cgroup can be left. Pods that our runtime runs need no search: the
// runtime reports them. The exception are Pods in a shared runtime from before their containers had our
// label; they are found here, by their directories.
func leftovers(listFiles func() ([]types.UID, error), groups groups) ([]types.UID, error) {
	ours, err := listFiles()
	inGroups, groupsErr := groups.ListPods()
	errs := []error{err, groupsErr}
	found := slices.Clone(ours)
	for _, uid := range inGroups {
		if slices.Contains(ours, uid) {
			continue
		}
		empty, err := groups.Empty(uid)
		errs = append(errs, err)
		if empty {
			found = append(found, uid)
		}
	}
	return found, errors.Join(errs...)
}
