package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"
)

// Unmount removes every mount and directory of the Pod and forgets it. It is
// idempotent, and works for Pods that were mounted by an earlier process. Call
// it when no container of the Pod runs any more.
func (m *Manager) Unmount(_ context.Context, uid types.UID) error {
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
	m.tokens.DeleteServiceAccountToken(uid)
	if !m.cfg.NoFiles {
		if err := removeAll(m.podDir(uid)); err != nil {
			return err
		}
	}
	m.mu.Lock()
	delete(m.states, uid)
	m.mu.Unlock()
	m.metrics.forget(uid)
	return nil
}

// ListPods returns the UIDs of all Pods that have a directory, for finding orphans.
func (m *Manager) ListPods() ([]types.UID, error) {
	entries, err := os.ReadDir(m.pods)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing directories of Pods: %w", err)
	}
	var uids []types.UID
	for _, e := range entries {
		if e.IsDir() {
			uids = append(uids, types.UID(e.Name()))
		}
	}
	return uids, nil
}
