//go:build linux

package kubelet

import (
	"errors"
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// podFiles are the directories of Pods; *volumes.Manager implements it.
type podFiles interface {
	ListPods() ([]types.UID, error)
}

// podCgroups are the cgroups of Pods; *cgroups.Manager implements it.
type podCgroups interface {
	ListPods() ([]types.UID, error)
	// Empty says whether no process is in the Pod's cgroup or below.
	Empty(uid types.UID) (bool, error)
}

// leftovers finds the Pods of this agent that have files, recorded volumes or a cgroup on this host.
//
// The agent kills the processes of its leftovers, and every kubelet gives its cgroups the same
// names: the containers of another, stopped kubelet on this host run on in theirs. So a Pod is ours
// only if it has a directory below our RootDir, or a record of a volume. A crash before that
// directory was made, or after it was removed, leaves no more than an empty cgroup, and an empty
// cgroup is safe to remove. What the runtime runs need not be found here, with one exception: Pods
// in a shared runtime from before their containers had our label are found by their directories.
type leftovers struct {
	files   podFiles
	cgroups podCgroups
}

// list implements pod.Config's Leftovers.
func (l leftovers) list() ([]types.UID, error) {
	ours, err := l.files.ListPods()
	inCgroups, cgroupsErr := l.cgroups.ListPods()
	errs := []error{err, cgroupsErr}
	found := slices.Clone(ours)
	for _, uid := range inCgroups {
		if slices.Contains(ours, uid) {
			continue
		}
		empty, err := l.cgroups.Empty(uid)
		errs = append(errs, err)
		if empty {
			found = append(found, uid)
		}
	}
	return found, errors.Join(errs...)
}
