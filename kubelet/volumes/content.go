package volumes

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
)

// payload is the files of a volume by path.
type payload map[string]volumeutil.FileProjection

// content is a volume whose files are written by us, and replaced all at once
// when they change.
type content struct {
	name string
	pod  *v1.Pod
	kind string
	// memory keeps the files off the disk: they are secret.
	memory bool
	// collect returns the files, and when they expire, zero for never.
	collect func(ctx context.Context) (payload, time.Time, error)
}

func (c content) directory() string { return "kubernetes.io~" + c.kind }

func (c content) mount(ctx context.Context, dir string) (result, error) {
	// First, so that nothing is left behind while an object is missing.
	files, next, err := c.collect(ctx)
	if err != nil {
		return result{}, err
	}
	if err := makeDir(dir, nil); err != nil {
		return result{}, err
	}
	if c.memory {
		if err := mountTmpfs(dir, 0, nil); err != nil {
			return result{}, err
		}
	}
	// Other volumes may be mounted inside this one, which is read-only for the runtime.
	if err := volumeutil.MakeNestedMountpoints(c.name, dir, *c.pod); err != nil {
		return result{}, err
	}
	w, err := volumeutil.NewAtomicWriter(dir, fmt.Sprintf("pod %s/%s volume %s", c.pod.Namespace, c.pod.Name, c.name))
	if err != nil {
		return result{}, fmt.Errorf("opening the volume's directory: %w", err)
	}
	// Before the new files become visible, so that no container sees them with other owners.
	setOwner := func(string) error { return own(dir, fsGroup(c.pod), true) }
	if err := w.Write(files, setOwner); err != nil {
		return result{}, fmt.Errorf("writing the volume's files: %w", err)
	}
	return result{Mounted: Mounted{HostPath: dir, ReadOnly: true, SELinuxRelabel: true}, next: next}, nil
}

func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// own gives everything in dir to the group, and lets it read, and write unless
// readOnly. New files in directories inherit the group.
func own(dir string, group *int64, readOnly bool) error {
	if group == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("giving the volume to group %d: %w", *group, err)
		}
		if err := os.Lchown(path, -1, int(*group)); err != nil { //nolint:gosec // no container can write here yet, or ever
			return fmt.Errorf("giving the volume to group %d: %w", *group, err)
		}
		// A link has no permissions of its own: chmod would change what it points to.
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("giving the volume to group %d: %w", *group, err)
		}
		mode := info.Mode() | 0o660
		if readOnly {
			mode = info.Mode() | 0o440
		}
		if d.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		if err := os.Chmod(path, mode); err != nil { //nolint:gosec // as above
			return fmt.Errorf("giving the volume to group %d: %w", *group, err)
		}
		return nil
	})
}

// file is one file of a payload, with the mode and the user that count: its own, or the volume's.
func file(data []byte, mode, defaultMode *int32, user, defaultUser *int64) volumeutil.FileProjection {
	if mode == nil {
		mode = defaultMode
	}
	perm := int32(0o644)
	if mode != nil {
		perm = *mode
	}
	return volumeutil.FileProjection{Data: data, Mode: perm, FsUser: volumeutil.ResolvesFsUser(defaultUser, user)}
}
