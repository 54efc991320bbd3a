//go:build linux

package kubelet

import (
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// groups are the cgroups of Pods; *cgroups.Manager has them.
type groups interface {
	ListPods() ([]types.UID, error)
	// Empty says whether no process is in the Pod's cgroup or below.
	Empty(uid types.UID) (bool, error)
}

// leftovers are the Pods of ours that have files or a cgroup on this node.
//
// What is left of a Pod is killed, and every kubelet calls its cgroups alike:
// the containers of another one on this machine that was stopped run on in
// theirs, and look like leftovers. So a Pod is ours only if it has a directory
// below our RootDir. Of one that crashed before it had, or after it had any
// more, nothing but an empty cgroup can be left, which is nobody's loss. What our
// runtime runs needs no search: the runtime reports it. The exception are Pods in a shared runtime
// from before their containers had our label, which are found here, by their directories.
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
