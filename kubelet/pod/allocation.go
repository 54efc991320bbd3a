package pod

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"flyball.dev/kubelet/containers"
	"flyball.dev/kubelet/cri"
)

// Allocation is what the node has promised to a Pod. It differs from the spec while
// a resize waits for room. All else (cgroups, containers, what other Pods may have)
// follows from it.
//
// The truth of it is in two places, neither of them in memory. A container carries
// what it was made with as an annotation, and for a Pod that was never resized that
// is all there is: starting a Pod costs no write. A granted resize is written to a
// file before anything is done about it. The API server's status cannot be the
// truth: it is written later, and has no limits of what is only promised. Nor can
// what the runtime reports: it knows no memory requests.
type Allocation struct {
	// Generation of the Pod that was granted; 0 if it was never resized.
	Generation int64 `json:"generation,omitempty"`
	// Pod are the resources of the Pod as a whole, Containers those of the containers.
	Pod        *v1.ResourceRequirements           `json:"pod,omitempty"`
	Containers map[string]v1.ResourceRequirements `json:"containers"`
}

// allocationOf is the allocation that grants the spec.
func allocationOf(pod *v1.Pod, generation int64) *Allocation {
	a := &Allocation{Generation: generation, Pod: pod.Spec.Resources, Containers: map[string]v1.ResourceRequirements{}}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			a.Containers[list[i].Name] = list[i].Resources
		}
	}
	return a
}

// made is the allocation that a Pod without a file has: what its containers were
// made with, and what the spec says of those that were not made yet.
func made(pod *v1.Pod, runtime cri.Pod) *Allocation {
	a := allocationOf(pod, 0)
	seen := map[string]bool{}
	for _, c := range runtime.Containers { // newest first
		created := containers.ParseInfo(c.Labels, c.Annotations).Created
		if _, ok := a.Containers[c.Name]; ok && !seen[c.Name] && created != nil {
			a.Containers[c.Name], a.Pod = created.Container, created.Pod
		}
		seen[c.Name] = true
	}
	return a
}

// resized says whether the Pod ever was.
func (a *Allocation) resized() bool { return a != nil && a.Generation > 0 }

// apply returns the Pod with what it is allocated, which is the Pod itself if that
// is what it wants.
func (a *Allocation) apply(pod *v1.Pod) *v1.Pod {
	if a == nil || a.grants(pod) {
		return pod
	}
	pod = pod.DeepCopy()
	pod.Spec.Resources = a.Pod
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if r, ok := a.Containers[list[i].Name]; ok {
				list[i].Resources = r
			}
		}
	}
	return pod
}

func (a *Allocation) grants(pod *v1.Pod) bool {
	if !apiequality.Semantic.DeepEqual(pod.Spec.Resources, a.Pod) {
		return false
	}
	for _, list := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if r, ok := a.Containers[list[i].Name]; ok && !apiequality.Semantic.DeepEqual(list[i].Resources, r) {
				return false
			}
		}
	}
	return true
}

// allocationFiles are the files of a directory, one for each Pod that was resized;
// with no directory nothing is kept.
type allocationFiles struct{ dir string }

const allocationSuffix = ".json"

func (f allocationFiles) path(uid types.UID) string {
	return filepath.Join(f.dir, string(uid)+allocationSuffix)
}

// save writes a file anew, so that a crash leaves the old one or the new one. After
// the machine itself has crashed no container runs, and the spec is as good.
func (f allocationFiles) save(uid types.UID, a *Allocation) error {
	if f.dir == "" {
		return nil
	}
	raw, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encoding the resources of Pod %s: %w", uid, err)
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("keeping the resources of Pod %s: %w", uid, err)
	}
	fresh := f.path(uid) + ".new"
	if err := os.WriteFile(fresh, raw, 0o600); err != nil {
		return fmt.Errorf("keeping the resources of Pod %s: %w", uid, err)
	}
	if err := os.Rename(fresh, f.path(uid)); err != nil {
		return fmt.Errorf("keeping the resources of Pod %s: %w", uid, err)
	}
	return nil
}

func (f allocationFiles) remove(uid types.UID) error {
	if f.dir == "" {
		return nil
	}
	if err := os.Remove(f.path(uid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forgetting the resources of Pod %s: %w", uid, err)
	}
	return nil
}

// load reads all files. One that is unreadable counts as missing: the runtime knows
// what the containers of its Pod were made with.
func (f allocationFiles) load() (map[types.UID]*Allocation, error) {
	all := map[types.UID]*Allocation{}
	entries, err := os.ReadDir(f.dir)
	if f.dir == "" || errors.Is(err, fs.ErrNotExist) {
		return all, nil
	} else if err != nil {
		return all, fmt.Errorf("reading the resources that Pods were given: %w", err)
	}
	for _, e := range entries {
		uid, ok := strings.CutSuffix(e.Name(), allocationSuffix)
		if !ok {
			continue
		}
		a := &Allocation{}
		raw, err := os.ReadFile(filepath.Join(f.dir, e.Name()))
		if err == nil && json.Unmarshal(raw, a) == nil && a.resized() {
			all[types.UID(uid)] = a
		}
	}
	return all, nil
}
