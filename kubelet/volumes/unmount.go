package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	authenticationv1 "k8s.io/api/authentication/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"flyball.dev/internal/mounts"
	"flyball.dev/kubelet/volumes/plan"
)

// Unmount unpublishes every volume of the Pod, removes every mount and directory of it and forgets
// it. It is idempotent, and works for Pods that were mounted by an earlier process. Call it when no
// container of the Pod runs any more.
func (m *Manager) Unmount(ctx context.Context, uid types.UID) error {
	// One name, and no way out of the directory of all Pods: everything below is deleted.
	if name := string(uid); !filepath.IsLocal(name) || name == "." || filepath.Base(name) != name {
		return fmt.Errorf("unmounting volumes: %q is not the UID of a Pod", uid)
	}
	m.mu.Lock()
	s := m.states[uid]
	m.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.gone = true
	}
	m.objects.Hold(uid, nil)
	m.bundles.Hold(uid, nil)
	m.certificates.Hold(uid, false)
	var errs []error
	for t, v := range m.targetsOf(uid) {
		m.unwant(v, t)
		errs = append(errs, m.release(ctx, v, t))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !m.cfg.NoFiles {
		if err := mounts.RemoveAll(m.podDir(uid)); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.states, uid)
	maps.DeleteFunc(m.tokens, func(k tokenKey, _ *authenticationv1.TokenRequest) bool { return k.pod == uid })
	return nil
}

// targetsOf are the recorded volumes of a Pod.
func (m *Manager) targetsOf(uid types.UID) map[plan.Target]*nodeVolume {
	m.mu.Lock()
	defer m.mu.Unlock()
	targets := map[plan.Target]*nodeVolume{}
	for _, v := range m.volumes {
		for _, t := range v.state.Targets() {
			if t.Pod == uid {
				targets[t] = v
			}
		}
	}
	return targets
}

// ListPods returns the UIDs of all Pods that have a directory or a recorded volume, for finding
// orphans.
func (m *Manager) ListPods() ([]types.UID, error) {
	entries, err := os.ReadDir(m.pods)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing directories of Pods: %w", err)
	}
	uids := sets.New[types.UID]()
	for _, e := range entries {
		if e.IsDir() {
			uids.Insert(types.UID(e.Name()))
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.volumes {
		for _, t := range v.state.Targets() {
			uids.Insert(t.Pod)
		}
	}
	return sets.List(uids), nil
}
