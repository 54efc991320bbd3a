package pod

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"flyball.dev/internal/atomicfile"
	"flyball.dev/kubelet/pod/plan"
)

// allocationFiles are the files of a directory, one for each Pod that was resized; with no
// directory nothing is kept.
type allocationFiles struct{ dir string }

const allocationSuffix = ".json"

func (f allocationFiles) path(uid types.UID) string {
	return filepath.Join(f.dir, string(uid)+allocationSuffix)
}

func (f allocationFiles) save(uid types.UID, a *plan.Allocation) error {
	if f.dir == "" {
		return nil
	}
	raw, err := json.Marshal(a)
	if err = cmp.Or(err, os.MkdirAll(f.dir, 0o700)); err == nil {
		err = atomicfile.Write(f.path(uid), raw, 0o600)
	}
	if err != nil {
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

// load reads all files. One that is unreadable counts as missing: the runtime knows what the
// containers of its Pod were made with.
func (f allocationFiles) load() (map[types.UID]*plan.Allocation, error) {
	all := map[types.UID]*plan.Allocation{}
	entries, err := os.ReadDir(f.dir)
	if f.dir == "" || errors.Is(err, fs.ErrNotExist) {
		return all, nil
	} else if err != nil {
		return all, fmt.Errorf("reading the resources that Pods were given: %w", err)
	}
	for _, e := range entries {
		uid, ok := strings.CutSuffix(e.Name(), allocationSuffix)
		a := &plan.Allocation{}
		raw, err := os.ReadFile(filepath.Join(f.dir, e.Name()))
		if ok && err == nil && json.Unmarshal(raw, a) == nil && a.Resized() {
			all[types.UID(uid)] = a
		}
	}
	return all, nil
}
