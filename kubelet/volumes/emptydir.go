package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	v1helper "k8s.io/kubernetes/pkg/apis/core/v1/helper"
)

// emptyDir is a directory, or a file system in memory, that lives and dies with the Pod.
type emptyDir struct {
	pod    *v1.Pod
	source *v1.EmptyDirVolumeSource
	memory int64 // of the node, in bytes
}

func (emptyDir) directory() string { return "kubernetes.io~empty-dir" }

func (v emptyDir) mount(_ context.Context, dir string) (result, error) {
	done := result{Mounted: Mounted{HostPath: dir, SELinuxRelabel: true}}
	if err := makeDir(dir, fsGroup(v.pod)); err != nil {
		return done, err
	}
	switch medium := v.source.Medium; {
	case medium == v1.StorageMediumDefault:
		return done, nil
	case medium == v1.StorageMediumMemory:
		return done, mountTmpfs(dir, v.size(), fsGroup(v.pod))
	case v1helper.IsHugePageMedium(medium):
		return done, fmt.Errorf("emptyDir medium %s is not supported yet", medium)
	default:
		return done, fmt.Errorf("unknown storage medium %q", medium)
	}
}

// size of a memory-backed volume: the least of sizeLimit, what the Pod may use,
// and what there is.
func (v emptyDir) size() int64 {
	size := v.memory
	consider := func(limit int64) {
		if limit > 0 && (size == 0 || limit < size) {
			size = limit
		}
	}
	limits := resourcehelper.PodLimits(v.pod, resourcehelper.PodResourcesOptions{})
	if allLimited(v.pod) {
		consider(limits.Memory().Value())
	}
	if v.source.SizeLimit != nil {
		consider(v.source.SizeLimit.Value())
	}
	return size
}

// allLimited says whether the Pod's memory is limited as a whole.
func allLimited(pod *v1.Pod) bool {
	if r := pod.Spec.Resources; r != nil && !r.Limits.Memory().IsZero() {
		return true
	}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for _, c := range list {
			if c.Resources.Limits.Memory().IsZero() {
				return false
			}
		}
	}
	return true
}

// makeDir makes a directory that everybody in the Pod may write to, and that
// belongs to the group, if any. It appears complete or not at all: once it is
// there, what is in it belongs to the containers.
func makeDir(dir string, group *int64) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	// No volume has such a name: they are DNS labels.
	draft := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".new")
	if err := os.MkdirAll(draft, 0o750); err != nil {
		return fmt.Errorf("making the volume's directory: %w", err)
	}
	if err := os.Chmod(draft, 0o777); err != nil { // whatever the umask
		return fmt.Errorf("opening the volume's directory to the Pod: %w", err)
	}
	if err := own(draft, group, false); err != nil {
		return err
	}
	if err := os.Rename(draft, dir); err != nil {
		return fmt.Errorf("making the volume's directory: %w", err)
	}
	return nil
}
