package volumes

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"

	"flyball.dev/kubelet/volumes/internal/mounter"
)

// payload is the files of a volume by path.
type payload map[string]volumeutil.FileProjection

// write makes target a directory with these files, and replaces them all at once when they change.
// next is when they expire, zero for never.
func (m *Manager) write(spec Spec, target string, files payload, next time.Time) (Published, error) {
	out := Published{Mounted: Mounted{HostPath: target, ReadOnly: true, SELinuxRelabel: true}, Next: next}
	if m.cfg.NoFiles {
		return out, nil
	}
	if err := makeDir(target, nil); err != nil {
		return out, err
	}
	if spec.Volume.ConfigMap == nil { // the other contents are kept off the disk
		if err := mounter.Tmpfs(target, 0, nil); err != nil {
			return out, err
		}
	}
	// Other volumes may be mounted inside this one, which is read-only for the runtime.
	if err := volumeutil.MakeNestedMountpoints(spec.Volume.Name, target, *spec.Pod); err != nil {
		return out, err
	}
	name := fmt.Sprintf("pod %s/%s volume %s", spec.Pod.Namespace, spec.Pod.Name, spec.Volume.Name)
	w, err := volumeutil.NewAtomicWriter(target, name)
	if err != nil {
		return out, fmt.Errorf("opening the volume's directory: %w", err)
	}
	// Before the new files become visible, so that no container sees them with other owners.
	setOwner := func(string) error { return own(target, FSGroup(spec.Pod), true, nil) }
	if err := w.Write(files, setOwner); err != nil {
		return out, fmt.Errorf("writing the volume's files: %w", err)
	}
	return out, nil
}

// makeDir makes a directory that everybody in the Pod may write to, and that belongs to the group,
// if any. It appears complete or not at all: once it exists, its content belongs to the containers.
func makeDir(dir string, group *int64) error {
	if _, err := os.Lstat(dir); err == nil {
		return nil
	}
	// No volume has such a name: they are DNS labels.
	draft := filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+".new")
	err := os.MkdirAll(draft, 0o750)
	if err == nil {
		err = os.Chmod(draft, 0o777) // independent of the umask
	}
	if err == nil {
		err = own(draft, group, false, nil)
	}
	if err == nil {
		err = os.Rename(draft, dir)
	}
	if err != nil {
		return fmt.Errorf("making the volume's directory: %w", err)
	}
	return nil
}

// file is one file of a payload. Its own mode and user take precedence over the volume's.
func file(data []byte, mode, defaultMode *int32, user, defaultUser *int64) volumeutil.FileProjection {
	mode = cmp.Or(mode, defaultMode, new(v1.ProjectedVolumeSourceDefaultMode))
	return volumeutil.FileProjection{Data: data, Mode: *mode, FsUser: volumeutil.ResolvesFsUser(defaultUser, user)}
}
