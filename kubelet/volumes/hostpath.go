package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/volume/util/hostutil"
)

// hostPath is a path of the host as it is, in the Pod's spec or behind a claim; only its type is
// checked.
type hostPath struct{ m *Manager }

func (hostPath) Name() string           { return "kubernetes.io/host-path" }
func (hostPath) CanSupport(s Spec) bool { return hostPathOf(s) != nil }

func hostPathOf(s Spec) *v1.HostPathVolumeSource {
	if s.PersistentVolume != nil {
		return s.PersistentVolume.Spec.HostPath
	}
	return s.Volume.HostPath
}

func (p hostPath) Publish(_ context.Context, spec Spec, _ Volume, _ Paths) (Published, error) {
	source := hostPathOf(spec)
	if spec.Block() {
		return Published{}, errors.New("a hostPath PV cannot be a block device; use a local PV")
	}
	if !p.m.cfg.NoFiles && source.Type != nil {
		if err := checkHostPath(source.Path, *source.Type); err != nil {
			return Published{}, err
		}
	}
	return Published{Mounted: Mounted{HostPath: source.Path, ReadOnly: spec.ReadOnly()}}, nil
}

// checkHostPath makes what the type says should be made and refuses anything of another type. Links
// are followed, as they are when the runtime mounts the path.
func checkHostPath(path string, want v1.HostPathType) error {
	_, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	switch want {
	case v1.HostPathUnset:
		return nil
	case v1.HostPathDirectoryOrCreate:
		want = v1.HostPathDirectory
		if missing {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return fmt.Errorf("making hostPath directory: %w", err)
			}
		}
	case v1.HostPathFileOrCreate:
		want = v1.HostPathFile
		if missing {
			if err := createFile(path); err != nil {
				return err
			}
		}
	}
	got, err := hostutil.NewHostUtil().GetFileType(path)
	if err != nil {
		return fmt.Errorf("hostPath type check failed: %s is not a %s: %w", path, nouns[want], err)
	}
	if v1.HostPathType(got) != want {
		return fmt.Errorf("hostPath type check failed: %s is not a %s, it's a %s", path, nouns[want], got)
	}
	return nil
}

// createFile makes an empty file, but not its directory: that is the API's contract.
func createFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("making hostPath file %s: its directory does not exist; "+
			"create it, or use type DirectoryOrCreate for it", path)
	} else if err != nil {
		return fmt.Errorf("making hostPath file: %w", err)
	}
	return f.Close()
}

// nouns are the types as users know them.
var nouns = map[v1.HostPathType]string{
	v1.HostPathDirectory: "directory", v1.HostPathFile: "file", v1.HostPathSocket: "socket",
	v1.HostPathCharDev: "character device", v1.HostPathBlockDev: "block device",
}
