package volumes

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/kubelet/util/store"
	utilfs "k8s.io/kubernetes/pkg/util/filesystem"

	"flyball.dev/kubelet/volumes/plan"
)

// records are small files, one per staged volume and one per volume that is published to a Pod. A
// record is written before the plugin is called and removed after the plugin has undone everything.
// Plugins that are not StagingPlugins need none: the directory of the Pod is their record.
type records struct{ staged, published store.Store }

// record of a staged volume, or of a published one if it has a target.
type record struct {
	Plugin string      `json:"plugin"`
	Volume Volume      `json:"volume"`
	Target plan.Target `json:"target,omitzero"`
}

func newRecords(rootDir string) (records, error) {
	var r records
	var errs [2]error
	r.staged, errs[0] = store.NewFileStore(filepath.Join(rootDir, "volumes", "staged"), &utilfs.DefaultFs{})
	r.published, errs[1] = store.NewFileStore(filepath.Join(rootDir, "volumes", "published"), &utilfs.DefaultFs{})
	if err := errors.Join(errs[:]...); err != nil {
		return r, fmt.Errorf("making the directories for records of volumes: %w", err)
	}
	return r, nil
}

func (r records) of(t plan.Target) (store.Store, string) {
	if t == (plan.Target{}) {
		return r.staged, ""
	}
	return r.published, string(t.Pod) + "/" + t.Volume
}

func (r records) write(rec record) error {
	files, key := r.of(rec.Target)
	content, err := json.Marshal(rec)
	if err == nil {
		err = files.Write(hash(string(rec.Volume.Name)+key), content)
	}
	if err != nil {
		return fmt.Errorf("recording volume %s: %w", rec.Volume.Name, err)
	}
	return nil
}

func (r records) remove(name v1.UniqueVolumeName, t plan.Target) error {
	files, key := r.of(t)
	if err := files.Delete(hash(string(name) + key)); err != nil {
		return fmt.Errorf("removing the record of volume %s: %w", name, err)
	}
	return nil
}

// read returns all records. A file that cannot be read stays where it is, with a message in the log.
func (r records) read() ([]record, error) {
	var all []record
	for _, files := range []store.Store{r.staged, r.published} {
		keys, err := files.List()
		if err != nil {
			return nil, fmt.Errorf("listing the records of volumes: %w", err)
		}
		for _, key := range keys {
			var rec record
			content, err := files.Read(key)
			if err == nil {
				err = json.Unmarshal(content, &rec)
			}
			if err != nil {
				klog.Background().Error(err, "Ignoring the record of a volume; unmount the volume by hand and remove the file", "file", key)
				continue
			}
			all = append(all, rec)
		}
	}
	return all, nil
}

// hash makes a file name of a name with any characters.
func hash(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}
