package volumes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"flyball.dev/internal/mounts"
	"flyball.dev/kubelet/volumes/plan"
)

// nodeVolume is a volume on this node. Those of a StagingPlugin are in Manager.volumes; any other
// belongs to one Pod and is forgotten once it is published, since its directory is its record.
type nodeVolume struct {
	// plugin that a record names; staging is nil if it does not exist, or stages nothing.
	plugin  string
	staging StagingPlugin
	volume  Volume
	// acting is held while the plugin is called.
	acting sync.Mutex
	// state is guarded by Manager.mu.
	state plan.State
}

// reconstruct learns from the records what an earlier process has left on the node.
func (m *Manager) reconstruct() error {
	all, err := m.records.read()
	for _, rec := range all {
		m.nodeVolume(rec.Plugin, rec.Volume).state.Progress[rec.Target] = plan.Begun
		m.unstaging.Add(rec.Volume.Name)
	}
	return err
}

// nodeVolume is called with mu held, except by reconstruct.
func (m *Manager) nodeVolume(plugin string, volume Volume) *nodeVolume {
	v := m.volumes[volume.Name]
	if v == nil {
		v = &nodeVolume{plugin: plugin, volume: volume, state: plan.State{
			Attach: volume.Attach, Stage: volume.Stage, Exclusive: volume.Exclusive,
			Wanted: map[plan.Target]bool{}, Progress: map[plan.Target]plan.Progress{},
		}}
		for _, p := range m.plugins {
			if s, ok := p.(StagingPlugin); ok && p.Name() == plugin {
				v.staging = s
			}
		}
		m.volumes[volume.Name] = v
	}
	return v
}

// want finds out which volume it is and notes that the Pod wants it.
func (m *Manager) want(ctx context.Context, p Plugin, spec Spec) (*nodeVolume, error) {
	t := spec.target()
	staging, ok := p.(StagingPlugin)
	if !ok || m.cfg.NoFiles {
		return &nodeVolume{plugin: p.Name(), state: plan.State{
			Wanted: map[plan.Target]bool{t: true}, Progress: map[plan.Target]plan.Progress{},
		}}, nil
	}
	volume, err := staging.Identify(ctx, spec)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	v := m.nodeVolume(p.Name(), volume)
	before := v.state.InNeed()
	v.state.Wanted[t] = true
	if v.state.Progress[t] == plan.Done {
		v.state.Progress[t] = plan.Begun // again: the Pod may have changed
	}
	m.settle(v, before)
	return v, nil
}

// publish carries out the plan for a Pod that wants the volume.
func (m *Manager) publish(ctx context.Context, v *nodeVolume, p Plugin, spec Spec) (published Published, err error) {
	v.acting.Lock()
	defer v.acting.Unlock()
	for err == nil {
		switch a := m.next(ctx, v, spec.target()).(type) {
		case nil:
			return published, nil
		case plan.Stage:
			err = m.stage(ctx, v, spec)
		case plan.Publish:
			published, err = m.publishTo(ctx, v, p, spec)
		default:
			err = WaitingError(a.Why())
		}
	}
	return Published{}, err
}

// release carries out the plan for a target that does not want the volume, or for none.
func (m *Manager) release(ctx context.Context, v *nodeVolume, t plan.Target) error {
	v.acting.Lock()
	defer v.acting.Unlock()
	for {
		begun := time.Now()
		operation, act := "", m.next(ctx, v, t)
		var err error
		switch act.(type) {
		case nil, plan.Wait:
			return nil
		case plan.Unpublish:
			operation, err = "volume_unmount", m.undo(ctx, v, t)
		case plan.Unstage:
			if t != (plan.Target{}) { // the Pod does not wait for it
				m.unstaging.Add(v.volume.Name)
				return nil
			}
			operation, err = "unmount_device", m.undo(ctx, v, t)
		}
		m.metrics.took(v.plugin, operation, err, time.Since(begun))
		if err != nil {
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
	if a != nil && v.recorded() {
		klog.FromContext(ctx).V(2).Info("Acting on a volume", "volume", v.volume.Name, "podUID", t.Pod,
			"action", fmt.Sprintf("%T", a), "reason", a.Why())
	}
	return a
}

func (m *Manager) stage(ctx context.Context, v *nodeVolume, spec Spec) error {
	path, err := m.begin(v, plan.Target{})
	if err == nil {
		err = v.staging.Stage(ctx, spec, v.volume, path)
	}
	if err == nil {
		m.set(v, plan.Target{}, plan.Done)
	}
	return err
}

func (m *Manager) publishTo(ctx context.Context, v *nodeVolume, p Plugin, spec Spec) (Published, error) {
	t := spec.target()
	paths := Paths{Target: m.path(v, t)}
	if v.recorded() {
		if _, err := m.begin(v, t); err != nil {
			return Published{}, err
		}
	}
	if v.volume.Stage {
		paths.Staging = m.path(v, plan.Target{})
	}
	published, err := p.Publish(ctx, spec, v.volume, paths)
	if err == nil {
		m.set(v, t, plan.Done)
	}
	return published, err
}

// begin records that the volume is about to be staged or published, and makes the parent of the path.
func (m *Manager) begin(v *nodeVolume, t plan.Target) (path string, err error) {
	m.mu.Lock()
	recorded := v.state.Progress[t] != plan.Absent
	m.mu.Unlock()
	if !recorded {
		if err := m.records.write(record{v.plugin, v.volume, t}); err != nil {
			return "", err
		}
		m.set(v, t, plan.Begun)
	}
	path = m.path(v, t)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return "", fmt.Errorf("making the directory of the volume: %w", err)
	}
	return path, nil
}

// undo unpublishes or unstages the volume, removes the path with its parent, and then the record.
func (m *Manager) undo(ctx context.Context, v *nodeVolume, t plan.Target) error {
	if v.staging == nil {
		return fmt.Errorf("unmounting volume %s: plugin %s does not exist any more", v.volume.Name, v.plugin)
	}
	m.set(v, t, plan.Begun)
	path := m.path(v, t)
	var err error
	if t == (plan.Target{}) {
		err = v.staging.Unstage(ctx, v.volume, path)
	} else if err = m.unbindSubPaths(t); err == nil { // they keep the volume busy
		err = v.staging.Unpublish(ctx, v.volume, path)
	}
	if err == nil {
		err = removeEmpty(path, filepath.Dir(path))
	}
	if err == nil {
		err = m.records.remove(record{v.plugin, v.volume, t})
	}
	if err != nil {
		return fmt.Errorf("unmounting volume %s from %s: %w", v.volume.Name, path, err)
	}
	m.set(v, t, plan.Absent)
	return nil
}

func (m *Manager) unbindSubPaths(t plan.Target) error {
	return mounts.RemoveAll(filepath.Join(m.podDir(t.Pod), "volume-subpaths", t.Volume))
}

// recorded says whether the volume is that of a StagingPlugin.
func (v *nodeVolume) recorded() bool { return v.volume.Name != "" }

func (m *Manager) set(v *nodeVolume, t plan.Target, p plan.Progress) {
	m.mu.Lock()
	before := v.state.InNeed()
	v.state.Progress[t] = p
	var waiting []types.UID
	if p == plan.Absent {
		delete(v.state.Progress, t)
		if v.state.Exclusive {
			waiting = v.waiting()
		}
	}
	m.settle(v, before)
	m.podsChanged(waiting)
}

// unwant notes that the Pod does not want the volume any more.
func (m *Manager) unwant(v *nodeVolume, t plan.Target) {
	m.mu.Lock()
	before := v.state.InNeed()
	delete(v.state.Wanted, t)
	m.settle(v, before)
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
	var names []v1.UniqueVolumeName
	for name, v := range m.volumes {
		if v.state.InNeed() {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// NodeChanged has the Pods reconciled that wait for the Node's status. It does not block.
func (m *Manager) NodeChanged() {
	m.mu.Lock()
	var waiting []types.UID
	for _, v := range m.volumes {
		if v.state.Attach {
			waiting = append(waiting, v.waiting()...)
		}
	}
	m.mu.Unlock()
	m.podsChanged(waiting)
}

// waiting are the Pods that want the volume and do not have it. It is called with Manager.mu held.
func (v *nodeVolume) waiting() []types.UID {
	var pods []types.UID
	for _, t := range v.state.Waiting() {
		pods = append(pods, t.Pod)
	}
	return pods
}

// path is where the volume is published, or staged for the empty target. That of a StagingPlugin is
// one level deeper: its parent is ours alone.
func (m *Manager) path(v *nodeVolume, t plan.Target) string {
	switch {
	case t == (plan.Target{}):
		plugins := filepath.Join(filepath.Dir(m.pods), "plugins")
		return filepath.Join(plugins, filepath.FromSlash(v.plugin), hash(string(v.volume.Name)), "globalmount")
	case v.recorded():
		return filepath.Join(m.volumesDir(t.Pod), strings.ReplaceAll(v.plugin, "/", "~"), t.Volume, "mount")
	}
	return filepath.Join(m.volumesDir(t.Pod), strings.ReplaceAll(v.plugin, "/", "~"), t.Volume)
}
