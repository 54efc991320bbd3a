package volumes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
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
	m.tokens.DeleteServiceAccountToken(uid)
	if !m.cfg.NoFiles {
		if err := removeAll(m.podDir(uid)); err != nil {
			return err
		}
	}
	m.mu.Lock()
	delete(m.states, uid)
	m.mu.Unlock()
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

// removeAll unmounts everything below dir and then deletes it. It deletes nothing
// as long as anything is mounted: what is below a mount belongs to somebody else.
func removeAll(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	mounts, err := mountsBelow(dir)
	if err != nil {
		return err
	}
	// The table is in the order of mounting; what was mounted last goes first.
	for _, path := range slices.Backward(mounts) {
		if err := unmount(path); err != nil {
			return fmt.Errorf("unmounting %s: %w", path, err)
		}
	}
	if len(mounts) > 0 {
		if mounts, err = mountsBelow(dir); err != nil {
			return err
		}
	}
	if len(mounts) > 0 {
		return fmt.Errorf("removing %s: %s is still mounted", dir, mounts[0])
	}
	// RemoveAll works relative to open directories and does not follow links.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("removing the Pod's directory: %w", err)
	}
	return nil
}

func mountsBelow(dir string) ([]string, error) {
	infos, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		return nil, fmt.Errorf("reading the mount table: %w", err)
	}
	var paths []string
	for _, info := range infos {
		paths = append(paths, info.Mountpoint)
	}
	return paths, nil
}

// unmount takes a mount away. If a process of ours has a file open in there, the
// mount is detached and vanishes when the file is closed.
func unmount(path string) error {
	err := unix.Unmount(path, unix.UMOUNT_NOFOLLOW)
	if errors.Is(err, unix.EBUSY) {
		err = unix.Unmount(path, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		// Not mounted any more, for example because its parent took it along.
		return nil
	}
	return err
}
