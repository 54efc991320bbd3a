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
		v := m.nodeVolume(rec.Plugin, rec.Volume)
		if rec.Target == (plan.Target{}) {
			v.state.Staged = plan.Begun
		} else {
			v.state.Uses[rec.Target] = plan.Use{Published: plan.Begun}
		}
		m.unstaging.Add(rec.Volume.Name)
	}
	return err
}

// nodeVolume is called with mu held, except by reconstruct.
func (m *Manager) nodeVolume(plugin string, volume Volume) *nodeVolume {
	v := m.volumes[volume.Name]
	if v == nil {
		v = &nodeVolume{plugin: plugin, volume: volume, state: plan.State{
			Attach: volume.Attach, Stage: volume.Stage, Exclusive: volume.Exclusive, Uses: map[plan.Target]plan.Use{},
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
		return &nodeVolume{plugin: p.Name(), state: plan.State{Uses: map[plan.Target]plan.Use{t: {Wanted: true}}}}, nil
	}
	volume, err := staging.Identify(ctx, spec)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	v := m.nodeVolume(p.Name(), volume)
	before, use := v.state.InNeed(), v.state.Uses[t]
	if use.Wanted = true; use.Published == plan.Done {
		use.Published = plan.Begun // again: the Pod may have changed
	}
	v.state.Uses[t] = use
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
			err = Waiting(a.Why())
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
			operation, err = "volume_unmount", m.unpublish(ctx, v, t)
		case plan.Unstage:
			if t != (plan.Target{}) { // the Pod does not wait for it
				m.unstaging.Add(v.volume.Name)
				return nil
			}
			operation, err = "unmount_device", m.unstage(ctx, v)
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
			s.Attached = slices.ContainsFunc(node.Status.VolumesAttached, func(a v1.AttachedVolume) bool { return a.Name == v.volume.Name })
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
	if v.state.Staged == plan.Absent {
		if err := m.records.write(record{Plugin: v.plugin, Volume: v.volume}); err != nil {
			return err
		}
		m.setStaged(v, plan.Begun)
	}
	path := m.stagingPath(v)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return fmt.Errorf("making the directory for a staged volume: %w", err)
	}
	err := v.staging.Stage(ctx, spec, v.volume, path)
	if err == nil {
		m.setStaged(v, plan.Done)
	}
	return err
}

func (m *Manager) publishTo(ctx context.Context, v *nodeVolume, p Plugin, spec Spec) (Published, error) {
	t := spec.target()
	paths := Paths{Target: m.targetPath(v, t)}
	if v.volume.Stage {
		paths.Staging = m.stagingPath(v)
	}
	if v.recorded() {
		if m.published(v, t) == plan.Absent {
			if err := m.records.write(record{v.plugin, v.volume, t}); err != nil {
				return Published{}, err
			}
			m.setUse(v, t, plan.Use{Wanted: true, Published: plan.Begun})
		}
		if err := os.MkdirAll(filepath.Dir(paths.Target), 0o750); err != nil {
			return Published{}, fmt.Errorf("making the directory of the volume: %w", err)
		}
	}
	published, err := p.Publish(ctx, spec, paths)
	if err == nil {
		m.setUse(v, t, plan.Use{Wanted: true, Published: plan.Done})
	}
	return published, err
}

func (m *Manager) unpublish(ctx context.Context, v *nodeVolume, t plan.Target) error {
	if v.staging == nil {
		return fmt.Errorf("unmounting volume %q of Pod %s: plugin %s does not exist any more", t.Volume, t.Pod, v.plugin)
	}
	m.setUse(v, t, plan.Use{Published: plan.Begun})
	// Bound subPaths keep the volume busy.
	if err := removeAll(filepath.Join(m.podDir(t.Pod), "volume-subpaths", t.Volume)); err != nil {
		return err
	}
	path := m.targetPath(v, t)
	if err := v.staging.Unpublish(ctx, v.volume, path); err != nil {
		return fmt.Errorf("unmounting volume %q of Pod %s: %w", t.Volume, t.Pod, err)
	}
	if err := m.forget(path, record{v.plugin, v.volume, t}); err != nil {
		return err
	}
	m.setUse(v, t, plan.Use{})
	return nil
}

func (m *Manager) unstage(ctx context.Context, v *nodeVolume) error {
	if v.staging == nil {
		return fmt.Errorf("unstaging volume %s: plugin %s does not exist any more", v.volume.Name, v.plugin)
	}
	m.setStaged(v, plan.Begun)
	path := m.stagingPath(v)
	if err := v.staging.Unstage(ctx, v.volume, path); err != nil {
		return fmt.Errorf("unstaging volume %s: %w", v.volume.Name, err)
	}
	if err := m.forget(path, record{Plugin: v.plugin, Volume: v.volume}); err != nil {
		return err
	}
	m.setStaged(v, plan.Absent)
	return nil
}

// forget removes a path that the plugin has undone, with its directory, and then the record.
func (m *Manager) forget(path string, rec record) error {
	if err := removeEmpty(path, filepath.Dir(path)); err != nil {
		return err
	}
	return m.records.remove(rec)
}

// recorded says whether the volume is that of a StagingPlugin.
func (v *nodeVolume) recorded() bool { return v.volume.Name != "" }

func (m *Manager) published(v *nodeVolume, t plan.Target) plan.Progress {
	m.mu.Lock()
	defer m.mu.Unlock()
	return v.state.Uses[t].Published
}

func (m *Manager) setStaged(v *nodeVolume, p plan.Progress) {
	m.mu.Lock()
	before := v.state.InNeed()
	v.state.Staged = p
	m.settle(v, before)
}

func (m *Manager) setUse(v *nodeVolume, t plan.Target, use plan.Use) {
	m.mu.Lock()
	before := v.state.InNeed()
	v.state.Uses[t] = use
	var waiting []types.UID
	if use == (plan.Use{}) {
		delete(v.state.Uses, t)
		if v.state.Exclusive {
			waiting = v.waiting()
		}
	}
	m.settle(v, before)
	m.podsChanged(waiting)
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
	for t, use := range v.state.Uses {
		if use.Wanted && use.Published != plan.Done {
			pods = append(pods, t.Pod)
		}
	}
	return pods
}

// targetPath is where the volume is published. That of a StagingPlugin is one level deeper: its
// parent is ours alone.
func (m *Manager) targetPath(v *nodeVolume, t plan.Target) string {
	path := filepath.Join(m.volumesDir(t.Pod), strings.ReplaceAll(v.plugin, "/", "~"), t.Volume)
	if v.recorded() {
		path = filepath.Join(path, "mount")
	}
	return path
}

func (m *Manager) stagingPath(v *nodeVolume) string {
	return filepath.Join(filepath.Dir(m.pods), "plugins", filepath.FromSlash(v.plugin), hash(string(v.volume.Name)), "globalmount")
}
