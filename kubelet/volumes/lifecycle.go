package volumes

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/samber/lo"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"flyball.dev/internal/mounts"
	"flyball.dev/kubelet/volumes/plan"
)

// nodeVolume is a volume of a StagingPlugin on this node. Any other volume belongs to one Pod,
// whose directory is its record.
type nodeVolume struct {
	// plugin that a record names; staging is nil if it does not exist, or stages nothing.
	plugin  string
	staging StagingPlugin
	volume  Volume
	// acting is held while the plugin is called.
	acting sync.Mutex
	// Manager.mu guards what follows. names are those of the directories of recorded targets.
	state plan.State
	names map[plan.Target]string
}

// reconstruct learns from the records what an earlier process has left on the node.
func (m *Manager) reconstruct() error {
	all, err := m.records.read()
	for _, rec := range all {
		v := m.nodeVolume(rec.Plugin, rec.Volume)
		v.state.Progress[rec.Target], v.names[rec.Target] = plan.Begun, cmp.Or(rec.Name, rec.Target.Volume)
		m.unstaging.Add(rec.Volume.Name)
	}
	return err
}

// nodeVolume is called with mu held, except by reconstruct.
func (m *Manager) nodeVolume(plugin string, volume Volume) *nodeVolume {
	v := m.volumes[volume.Name]
	if v == nil {
		v = &nodeVolume{plugin: plugin, volume: volume, names: map[plan.Target]string{}, state: plan.State{
			Attach: volume.Attach, Stage: volume.Stage, Exclusive: volume.Exclusive,
			Wanted: map[plan.Target]bool{}, Progress: map[plan.Target]plan.Progress{},
		}}
		p, _ := lo.Find(m.plugins, func(p Plugin) bool { return p.Name() == plugin })
		v.staging, _ = p.(StagingPlugin)
		m.volumes[volume.Name] = v
	}
	return v
}

// publish finds out which volume it is, notes that the Pod wants it, and carries out the plan for
// that.
func (m *Manager) publish(ctx context.Context, p StagingPlugin, spec Spec) (published Published, err error) {
	volume, err := p.Identify(ctx, spec)
	if err != nil {
		return published, err
	}
	volume.Exclusive, volume.Block = volume.Exclusive || spec.Exclusive(), spec.Block()
	t := spec.target()
	v := m.want(p.Name(), volume, t)
	v.acting.Lock()
	defer v.acting.Unlock()
	for err == nil {
		var path string
		switch a := m.next(ctx, v, t).(type) {
		case nil:
			return published, nil
		case plan.Stage:
			if path, err = m.begin(v, plan.Target{}, ""); err == nil {
				err = p.Stage(ctx, spec, volume, path)
			}
			if err == nil {
				m.set(v, plan.Target{}, plan.Done)
			}
		case plan.Publish:
			paths := Paths{}
			if volume.Stage {
				paths.Staging = m.path(v, plan.Target{})
			}
			if paths.Target, err = m.begin(v, t, spec.name()); err == nil {
				published, err = p.Publish(ctx, spec, volume, paths)
			}
			if err == nil {
				m.set(v, t, plan.Done)
			}
		default:
			err = WaitingError(a.Why())
		}
	}
	return published, err
}

// want notes that a Pod wants the volume.
func (m *Manager) want(plugin string, volume Volume, t plan.Target) *nodeVolume {
	m.mu.Lock()
	v := m.nodeVolume(plugin, volume)
	defer m.settle(v, v.state.InNeed())
	v.state.Wanted[t] = true
	if v.state.Progress[t] == plan.Done {
		v.state.Progress[t] = plan.Begun // again: the Pod may have changed
	}
	return v
}

// release carries out the plan for a target that does not want the volume, or for none.
func (m *Manager) release(ctx context.Context, v *nodeVolume, t plan.Target) error {
	v.acting.Lock()
	defer v.acting.Unlock()
	for {
		switch m.next(ctx, v, t).(type) {
		case plan.Unstage:
			if t != (plan.Target{}) { // the Pod does not wait for it
				m.unstaging.Add(v.volume.Name)
				return nil
			}
		case plan.Unpublish:
		default:
			return nil
		}
		if err := m.undo(ctx, v, t); err != nil {
			return err
		}
	}
}

// next observes and plans.
func (m *Manager) next(ctx context.Context, v *nodeVolume, t plan.Target) plan.Action {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := v.state
	if s.Attach {
		if node := m.cfg.Node(); node != nil {
			s.InUse = slices.Contains(node.Status.VolumesInUse, v.volume.Name)
			s.Attached = slices.ContainsFunc(node.Status.VolumesAttached, func(a v1.AttachedVolume) bool {
				return a.Name == v.volume.Name
			})
		}
	}
	a := plan.Next(s, t)
	if a != nil {
		klog.FromContext(ctx).V(2).Info("Acting on a volume", "volume", v.volume.Name, "podUID", t.Pod,
			"action", fmt.Sprintf("%T", a), "reason", a.Why())
	}
	return a
}

// begin records that the volume is about to be staged or published, and makes the parent of the
// path.
func (m *Manager) begin(v *nodeVolume, t plan.Target, name string) (path string, err error) {
	m.mu.Lock()
	recorded := v.state.Progress[t] != plan.Absent
	m.mu.Unlock()
	if !recorded {
		if err := m.records.write(record{v.plugin, v.volume, t, name}); err != nil {
			return "", err
		}
		m.mu.Lock()
		v.names[t] = name
		m.mu.Unlock()
		m.set(v, t, plan.Begun)
	}
	path = m.path(v, t)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("making the directory of the volume: %w", err)
	}
	return path, nil
}

// undo unpublishes or unstages the volume, removes the path with what is left of the volume's own
// directory, and then the record.
func (m *Manager) undo(ctx context.Context, v *nodeVolume, t plan.Target) (err error) {
	m.set(v, t, plan.Begun)
	path, operation, begun := m.path(v, t), "volume_unmount", time.Now()
	rest := []string{path}
	if !v.volume.Block || t == (plan.Target{}) {
		rest = append(rest, filepath.Dir(path))
	}
	rest = append(rest, m.records.path(v.volume.Name, t))
	switch {
	case v.staging == nil:
		err = fmt.Errorf("plugin %s does not exist any more", v.plugin)
	case t == (plan.Target{}):
		operation = "unmount_device"
		err = v.staging.Unstage(ctx, v.volume, path)
	default:
		// SubPaths keep the volume busy.
		if err = mounts.RemoveAll(filepath.Join(m.podDir(t.Pod), "volume-subpaths", m.nameIn(v, t))); err == nil {
			err = v.staging.Unpublish(ctx, v.volume, path)
		}
	}
	if err == nil {
		err = removeEmpty(rest...)
	}
	m.measure(v.plugin, operation, begun, err)
	if err != nil {
		return fmt.Errorf("unmounting volume %s from %s: %w", v.volume.Name, path, err)
	}
	m.set(v, t, plan.Absent)
	m.reconcileWaiting(func(other *nodeVolume) bool { return other == v && v.volume.Exclusive })
	return nil
}

func (m *Manager) set(v *nodeVolume, t plan.Target, p plan.Progress) {
	m.mu.Lock()
	defer m.settle(v, v.state.InNeed())
	if v.state.Progress[t] = p; p == plan.Absent {
		delete(v.state.Progress, t)
		delete(v.names, t)
	}
}

// unwant notes that the Pod does not want the volume any more.
func (m *Manager) unwant(v *nodeVolume, t plan.Target) {
	m.mu.Lock()
	defer m.settle(v, v.state.InNeed())
	delete(v.state.Wanted, t)
}

// settle forgets a volume when it has left the node, and has the Node's status reported if
// VolumesInUse changed. It is called with mu held and releases it.
func (m *Manager) settle(v *nodeVolume, before bool) {
	if v.state.Idle() {
		delete(m.volumes, v.volume.Name)
	}
	changed := v.state.InNeed() != before
	m.mu.Unlock()
	if changed {
		m.cfg.InUseChanged()
	}
}

// VolumesInUse lists the attached volumes that the node needs, for the Node's status. The
// attach/detach controller detaches none of them.
func (m *Manager) VolumesInUse() []v1.UniqueVolumeName {
	m.mu.Lock()
	defer m.mu.Unlock()
	needed := lo.PickBy(m.volumes, func(_ v1.UniqueVolumeName, v *nodeVolume) bool { return v.state.InNeed() })
	return slices.Sorted(maps.Keys(needed))
}

// NodeChanged has the Pods reconciled that wait for the Node's status. It does not block.
func (m *Manager) NodeChanged() {
	m.reconcileWaiting(func(v *nodeVolume) bool { return v.volume.Attach })
}

// reconcileWaiting has the Pods reconciled that want one of the changed volumes and do not have it.
func (m *Manager) reconcileWaiting(changed func(*nodeVolume) bool) {
	var pods []types.UID
	m.mu.Lock()
	for _, v := range m.volumes {
		if changed(v) {
			pods = append(pods, v.state.Waiting()...)
		}
	}
	m.mu.Unlock()
	m.podsChanged(pods)
}

func (m *Manager) nameIn(v *nodeVolume, t plan.Target) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return v.names[t]
}

// path is where the volume is published, or staged for the empty target. Its parent is ours alone,
// except that the block devices of a Pod lie side by side.
func (m *Manager) path(v *nodeVolume, t plan.Target) string {
	if t == (plan.Target{}) {
		plugins := filepath.Join(filepath.Dir(m.pods), "plugins")
		return filepath.Join(plugins, filepath.FromSlash(v.plugin), hash(string(v.volume.Name)), "globalmount")
	}
	if v.volume.Block {
		return filepath.Join(m.podDir(t.Pod), "volumeDevices", dirOf(v.plugin), m.nameIn(v, t))
	}
	return filepath.Join(m.volumeDir(v.plugin, t.Pod, m.nameIn(v, t)), "mount")
}
