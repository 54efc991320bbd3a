//go:build linux

package cgroups

import (
	"fmt"
	"path"

	"github.com/samber/lo"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
)

// Group is a cgroup that is measured.
type Group struct {
	// Path begins at the root of the hierarchy, such as /kubepods/burstable/podUID/ID.
	Path string
	// Pod is the UID of the Pod that the cgroup is part of; empty for those above.
	Pod types.UID
	// Name is what the runtime calls its cgroup below that of the Pod; empty for all others.
	Name string
	// Dirs are the directories of the cgroup: by controller with v1, one under "" with v2.
	Dirs map[string]string
}

// Groups lists the cgroups that are measured: the root, the top, the classes, the Pods and those
// that the runtime made directly below the Pods.
func (m *Manager) Groups() ([]Group, error) {
	groups := []Group{m.group("/", "", "")}
	for _, class := range classes {
		groups = append(groups, m.group(classPath(m.root, class), "", ""))
		pods, err := m.pods(class)
		if err != nil {
			return nil, err
		}
		for _, uid := range pods {
			pod := m.group(podPath(m.root, class, uid), uid, "")
			groups = append(groups, pod)
			names, err := m.hierarchy.children(pod.Path)
			if err != nil {
				return nil, fmt.Errorf("listing cgroups of containers: %w", err)
			}
			for _, name := range sets.List(names) {
				groups = append(groups, m.group(path.Join(pod.Path, name), uid, name))
			}
		}
	}
	return groups, nil
}

func (m *Manager) group(at string, pod types.UID, name string) Group {
	return Group{Path: at, Pod: pod, Name: name, Dirs: m.hierarchy.dirs(at)}
}

// measured are the controllers of v1 that measure. The CPU set is not among them: it is empty, an
// error for those who read it, in what a runtime makes before it starts.
var measured = sets.New("cpu", "cpuacct", "memory", "blkio", "pids")

// dirs are the directories of the cgroup that measure it, see Group.
func (h hierarchy) dirs(path string) map[string]string {
	// The root has no number of processes.
	return lo.PickBy(h.paths(path), func(controller, _ string) bool {
		return h.v2 || measured.Has(controller) && (controller != "pids" || path != "/")
	})
}
