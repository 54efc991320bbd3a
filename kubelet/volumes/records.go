package volumes

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"

	"flyball.dev/internal/atomicfile"
	"flyball.dev/kubelet/volumes/plan"
)

// records are small files, one per staged volume and one per volume that is published to a Pod. A
// record is written before the plugin is called and removed after the plugin has undone everything.
type records struct{ dir string }

// record of a volume that is published to the target, or that is staged if there is no target.
type record struct {
	Plugin string      `json:"plugin"`
	Volume Volume      `json:"volume"`
	Target plan.Target `json:"target,omitzero"`
	// Name of the directory in that of the Pod; the volume's name in the spec if it is empty.
	Name string `json:"name,omitempty"`
}

func (r records) write(rec record) error {
	content, err := json.Marshal(rec)
	if err == nil {
		err = errors.Join(os.MkdirAll(r.dir, 0o750), atomicfile.Write(r.path(rec.Volume.Name, rec.Target), content, 0o600))
	}
	if err != nil {
		return fmt.Errorf("recording volume %s: %w", rec.Volume.Name, err)
	}
	return nil
}

// read returns all records. A file that cannot be read stays where it is, with a message in the
// log.
func (r records) read() ([]record, error) {
	files, err := os.ReadDir(r.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the records of volumes: %w", err)
	}
	var all []record
	for _, f := range files {
		var rec record
		file := filepath.Join(r.dir, f.Name())
		if filepath.Ext(file) != ".json" { // it was being written when the agent crashed
			_ = os.Remove(file)
			continue
		}
		content, err := os.ReadFile(file)
		if err == nil {
			err = json.Unmarshal(content, &rec)
		}
		if err != nil {
			klog.Background().Error(err, "Ignoring the record of a volume; unmount the volume and remove the file", "file", file)
			continue
		}
		all = append(all, rec)
	}
	return all, nil
}

// path of the record: staged-HASH.json or published-HASH.json.
func (r records) path(volume v1.UniqueVolumeName, t plan.Target) string {
	name := "staged-" + hash(string(volume))
	if t != (plan.Target{}) {
		name = "published-" + hash(fmt.Sprintf("%s/%s/%s", t.Pod, t.Volume, volume))
	}
	return filepath.Join(r.dir, name+".json")
}

// removeEmpty deletes files and empty directories, and fails for anything that is still mounted.
func removeEmpty(paths ...string) error {
	for _, path := range paths {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("removing the rest of a volume: %w", err)
		}
	}
	return nil
}

// hash makes a file name of a name with any characters.
func hash(name string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(name)))
}
