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

// leftovers finds the Pods of this agent that have files, recorded volumes or a cgroup on this
// host.
//
// The agent kills the processes of its leftovers, and every kubelet gives its cgroups the same
// names: the containers of another, stopped kubelet on this host run on in theirs. So a Pod is ours
// only if it has a directory below our RootDir, or a record of a volume. A crash before that
// directory was made, or after it was removed, leaves no more than an empty cgroup, which is safe
// to remove. Pods in a shared runtime whose containers have no label yet are found by their
// directories.
type leftovers struct {
	files   podFiles
	cgroups podCgroups
}

func (l leftovers) list() ([]types.UID, error) {
	found, err := l.files.ListPods()
	inCgroups, cgroupsErr := l.cgroups.ListPods()
	err = errors.Join(err, cgroupsErr)
	for _, uid := range inCgroups {
		if slices.Contains(found, uid) {
			continue
		}
		empty, emptyErr := l.cgroups.Empty(uid)
		if err = errors.Join(err, emptyErr); empty {
			found = append(found, uid)
		}
	}
	return found, err
}
