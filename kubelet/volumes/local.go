package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/moby/sys/mountinfo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/kubelet/events"
	"k8s.io/kubernetes/pkg/volume/util/hostutil"
	"k8s.io/utils/keymutex"

	"flyball.dev/internal/mounts"
	"flyball.dev/kubelet/volumes/internal/mounter"
)

// local is a directory or a block device of the node that a PersistentVolume names. A directory is
// bound to the target. So is the file system on a device, unless the claim is for the device
// itself. Devices are not formatted: that would need programs of the host.
type local struct {
	m *Manager
	// publishing is held by PersistentVolume: Pods that share it set its ownership.
	publishing keymutex.KeyMutex
}

func newLocal(m *Manager) *local { return &local{m: m, publishing: keymutex.NewHashed(0)} }

func (*local) Name() string { return "kubernetes.io/local-volume" }

func (*local) CanSupport(s Spec) bool {
	return s.PersistentVolume != nil && s.PersistentVolume.Spec.Local != nil
}

func (p *local) Publish(_ context.Context, spec Spec, _ Volume, paths Paths) (Published, error) {
	pv := spec.PersistentVolume
	path, err := filepath.EvalSymlinks(pv.Spec.Local.Path)
	if err != nil {
		return Published{}, fmt.Errorf("finding the path of local PV %s: %w", pv.Name, err)
	}
	kind, err := hostutil.NewHostUtil().GetFileType(path)
	switch {
	case err != nil:
		return Published{}, fmt.Errorf("finding the type of local PV %s: %w", pv.Name, err)
	case spec.Block() && kind == hostutil.FileTypeBlockDev:
		return Published{Mounted: Mounted{HostPath: path, Device: true, ReadOnly: spec.ReadOnly()}}, nil
	case spec.Block():
		return Published{}, fmt.Errorf("local PV %s has volumeMode Block, but %s is a %s", pv.Name, path, kind)
	case kind != hostutil.FileTypeBlockDev && kind != hostutil.FileTypeDirectory:
		return Published{}, fmt.Errorf("local PV %s is neither a directory nor a block device: %s is a %s", pv.Name, path, kind)
	}
	p.publishing.LockKey(pv.Name)
	defer func() { _ = p.publishing.UnlockKey(pv.Name) }()
	out := Published{Mounted: Mounted{HostPath: paths.Target, ReadOnly: spec.ReadOnly(), SELinuxRelabel: true}}
	return out, p.mount(spec, path, kind == hostutil.FileTypeBlockDev, paths.Target)
}

// mount has the volume appear at the target with all options and the right owner, or not at all.
func (p *local) mount(spec Spec, path string, device bool, target string) (err error) {
	suffix := strings.TrimPrefix(target, p.m.volumesDir(spec.Pod.UID))
	published, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(i.Mountpoint, p.m.pods) || !strings.HasSuffix(i.Mountpoint, suffix), false
	})
	if err != nil {
		return fmt.Errorf("reading the mount table: %w", err)
	}
	if slices.ContainsFunc(published, func(i *mountinfo.Info) bool { return i.Mountpoint == target }) {
		return nil
	}
	// No PersistentVolume has such a name.
	draft := filepath.Join(filepath.Dir(target), "."+filepath.Base(target)+".new")
	if err := errors.Join(os.MkdirAll(draft, 0o750), os.MkdirAll(target, 0o750)); err != nil {
		return fmt.Errorf("making the volume's directory: %w", err)
	}
	defer func() { err = errors.Join(err, mounts.Unmount(draft), os.Remove(draft)) }()
	options := spec.PersistentVolume.Spec.MountOptions
	if device {
		err = mounter.Device(path, draft, spec.PersistentVolume.Spec.Local.FSType, options)
	} else {
		err = mounter.Bind(path, draft, options)
	}
	if err == nil && !spec.ReadOnly() && !slices.Contains(options, "ro") {
		err = p.own(spec, draft, len(published) > 0)
	}
	if err == nil {
		err = mounter.Bind(draft, target, nil)
	}
	return err
}

// own gives the volume to the Pod's fsGroup, but not below another Pod that uses it.
func (p *local) own(spec Spec, dir string, shared bool) error {
	group := FSGroup(spec.Pod)
	if !shared || group == nil {
		return SetOwnership(spec.Pod, dir)
	}
	_, old, err := hostutil.NewHostUtil().GetOwner(dir)
	if err == nil && old != *group {
		p.m.cfg.Event(spec.Pod, v1.EventTypeWarning, events.WarnAlreadyMountedVolume, fmt.Sprintf(
			"The requested fsGroup is %d, but the volume %s has GID %d. The volume may not be shareable.",
			*group, spec.PersistentVolume.Name, old))
	}
	return err
}
