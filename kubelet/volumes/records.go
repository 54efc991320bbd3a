package volumes

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"

	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/util/store"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"

	"flyball.dev/kubelet/volumes/plan"
)

// records are small files, one per staged volume and one per volume that is published to a Pod. A
// record is written before the plugin is called and removed after the plugin has undone everything.
type records struct{ files store.Store }

// record of a volume that is published to the target, or that is staged if there is no target.
type record struct {
	Plugin string      `json:"plugin"`
	Volume Volume      `json:"volume"`
	Target plan.Target `json:"target,omitzero"`
}

func newRecords(rootDir string) (records, error) {
	files, err := store.NewFileStore(filepath.Join(rootDir, "volumes"), &utilfs.DefaultFs{})
	if err != nil {
		err = fmt.Errorf("making the directory for records of volumes: %w", err)
	}
	return records{files}, err
}

func (r records) write(rec record) error {
	content, err := json.Marshal(rec)
	if err == nil {
		err = r.files.Write(rec.key(), content)
	}
	if err != nil {
		return fmt.Errorf("recording volume %s: %w", rec.Volume.Name, err)
	}
	return nil
}

func (r records) remove(rec record) error {
	if err := r.files.Delete(rec.key()); err != nil {
		return fmt.Errorf("removing the record of volume %s: %w", rec.Volume.Name, err)
	}
	return nil
}

// read returns all records. A file that cannot be read stays where it is, with a message in the log.
func (r records) read() ([]record, error) {
	keys, err := r.files.List()
	if err != nil {
		return nil, fmt.Errorf("listing the records of volumes: %w", err)
	}
	var all []record
	for _, key := range keys {
		var rec record
		content, err := r.files.Read(key)
		if err == nil {
			err = json.Unmarshal(content, &rec)
		}
		if err != nil {
			klog.Background().Error(err, "Ignoring the record of a volume; unmount the volume and remove the file", "file", key)
			continue
		}
		all = append(all, rec)
	}
	return all, nil
}

func (r record) key() string {
	if r.Target == (plan.Target{}) {
		return "staged-" + hash(string(r.Volume.Name))
	}
	return "published-" + hash(fmt.Sprintf("%s/%s/%s", r.Target.Pod, r.Target.Volume, r.Volume.Name))
}

// hash makes a file name of a name with any characters.
func hash(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}
